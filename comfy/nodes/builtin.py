"""All node classes of this server, registered under the modules that clients know them by."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import comfy.nodes
import comfy_extras
from comfy.nodes.registry import NodeRegistry


def register_builtin(registry: NodeRegistry) -> None:
    """Import every module of comfy.nodes and comfy_extras and register what it exports as NODE_CLASS_MAPPINGS.

    `python_module` of `/object_info` is `nodes` for the first and `comfy_extras.<file>` for the second.
    """
    for package, shown_as in ((comfy.nodes, "nodes"), (comfy_extras, None)):
        for module in _modules(package):
            classes = getattr(module, "NODE_CLASS_MAPPINGS", None)
            if classes:
                titles = getattr(module, "NODE_DISPLAY_NAME_MAPPINGS", None)
                registry.add(classes, titles, module=shown_as or module.__name__)


def _modules(package: ModuleType) -> list[ModuleType]:
    names = sorted(info.name for info in pkgutil.iter_modules(package.__path__))
    return [importlib.import_module(f"{package.__name__}.{name}") for name in names]
