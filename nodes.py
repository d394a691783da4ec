"""Edge: the built-in nodes and the registry under the names that custom nodes import (contract: custom-nodes.md section 6)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from comfy import control
from comfy.nodes.builtin import register_builtin
from comfy.nodes.registry import NodeRegistry
from comfy.nodes.sampling import common_ksampler as common_ksampler

sys.path.append(str(Path(__file__).resolve().parent / "comfy"))  # packs import e.g. `ldm` and `utils` from there

#: largest side of an image, in pixels
MAX_RESOLUTION = 16384

registry = NodeRegistry()
NODE_CLASS_MAPPINGS = registry.classes
NODE_DISPLAY_NAME_MAPPINGS = registry.titles
#: pack name -> folder served at /extensions/<pack name>
EXTENSION_WEB_DIRS: dict[str, str] = {}
#: pack name -> its folder
LOADED_MODULE_DIRS: dict[str, str] = {}

register_builtin(registry)
BUILTIN_NAMES = frozenset(NODE_CLASS_MAPPINGS)
globals().update({name: cls for name, cls in NODE_CLASS_MAPPINGS.items() if name.isidentifier()})  # for `from nodes import *`


def __getattr__(name: str) -> Any:
    """A built-in node class by its registered name: `nodes.KSampler`, `nodes.SaveImage` …"""
    if name in BUILTIN_NAMES:
        return NODE_CLASS_MAPPINGS[name]
    raise AttributeError(f"module 'nodes' has no attribute {name!r}")


def before_node_execution() -> None:
    """Raise when the running job was asked to stop."""
    control.check()


def interrupt_processing(value: bool = True) -> None:
    """Ask the calling code's job to stop, or take that back."""
    from comfy.model_management import interrupt_current_processing

    interrupt_current_processing(value)
