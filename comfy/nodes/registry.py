"""The node classes that this process knows, by name. Filled before the first lane starts; packs may read it later."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger(__name__)


@dataclass(eq=False)
class NodeRegistry:
    """Names -> classes and titles. `classes` and `titles` are the dicts that packs know as
    `nodes.NODE_CLASS_MAPPINGS` and `nodes.NODE_DISPLAY_NAME_MAPPINGS`: the same objects for the life of the process.
    """

    classes: dict[str, Any] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)

    def add(self, classes: Mapping[str, Any], titles: Mapping[str, str] | None = None, *, module: str, protect: Iterable[str] = ()) -> None:
        """Register `classes` as coming from `module`; names in `protect` (the built-in ones) are left as they are."""
        keep = frozenset(protect)
        for name, cls in classes.items():
            if name in keep:
                log.warning("%s: the node name %s belongs to a built-in node and is ignored", module, name)
                continue
            self.classes[name] = cls
            if "RELATIVE_PYTHON_MODULE" not in vars(cls):
                cls.RELATIVE_PYTHON_MODULE = module
        self.titles.update(titles or {})

    def describe(self, name: str) -> dict[str, Any]:
        """One class as `/object_info` shows it (contract: http-api.md section 5). Raises what the class raises."""
        cls = self.classes[name]
        if hasattr(cls, "GET_NODE_INFO_V1"):  # a V3 class describes itself
            return dict(cls.GET_NODE_INFO_V1())
        inputs = cls.INPUT_TYPES()
        returns = list(cls.RETURN_TYPES)
        info: dict[str, Any] = {
            "input": inputs,
            "input_order": {group: list(entries) for group, entries in inputs.items()},
            "output": returns,
            "output_is_list": list(getattr(cls, "OUTPUT_IS_LIST", [False] * len(returns))),
            "output_name": list(getattr(cls, "RETURN_NAMES", returns)),
            "name": name,
            "display_name": self.titles.get(name, name),
            "description": getattr(cls, "DESCRIPTION", ""),
            "python_module": getattr(cls, "RELATIVE_PYTHON_MODULE", "nodes"),
            "category": getattr(cls, "CATEGORY", "sd"),
            "output_node": getattr(cls, "OUTPUT_NODE", False) is True,
        }
        if hasattr(cls, "OUTPUT_TOOLTIPS"):
            info["output_tooltips"] = list(cls.OUTPUT_TOOLTIPS)
        for key in ("deprecated", "experimental", "api_node"):
            if getattr(cls, key.upper(), False):
                info[key] = True
        return info

    def describe_all(self) -> dict[str, Any]:
        """Every class; one whose description raises is logged and left out."""
        info = {}
        for name in list(self.classes):
            try:
                info[name] = self.describe(name)
            except Exception:
                log.exception("node %s cannot describe itself and is left out of /object_info", name)
        return info
