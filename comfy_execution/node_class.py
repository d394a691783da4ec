"""One node class as the executor sees it, V1 or V3, read once per prompt (contract: custom-nodes.md sections 2 to 4).

V3 classes are recognised by what they offer (`define_schema` or `GET_SCHEMA`), so that this module needs no import of
`comfy_api`. Their hidden values are set on a locked clone of the class, made for one call.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from comfy.errors import NodeError
from comfy.nodes.registry import NodeRegistry

#: hidden kinds that nodes may ask for; any other string under `hidden` is ignored
HIDDEN_KINDS = ("PROMPT", "DYNPROMPT", "EXTRA_PNGINFO", "UNIQUE_ID", "AUTH_TOKEN_COMFY_ORG", "API_KEY_COMFY_ORG")

InputInfo = tuple[Any, str | None, Mapping[str, Any]]


class UnknownNodeClass(NodeError):
    """The server knows no node of this class."""


def input_info(input_types: Mapping[str, Any], name: str) -> InputInfo:
    """(type, group, options) of a declared input; (None, None, {}) when the class does not declare it.

    Asks with `in` and `[]`: packs return dict subclasses that claim to have every key.
    """
    for group in ("required", "optional", "hidden"):
        entries = input_types.get(group)
        if entries is None or name not in entries:
            continue
        spec = entries[name]
        if isinstance(spec, str) or not isinstance(spec, tuple | list):
            return spec, group, {}
        kind = spec[0] if len(spec) > 0 else None
        options = spec[1] if len(spec) > 1 and isinstance(spec[1], Mapping) else {}
        return kind, group, options
    return None, None, {}


class _Hidden:
    """`cls.hidden` of a V3 clone that its library did not make: every attribute that was not given reads None."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


def _locked_clone(cls: type, hidden: Mapping[str, Any]) -> type:
    class Locked(type(cls)):  # type: ignore[misc]
        def __setattr__(self, name: str, value: Any) -> None:
            raise AttributeError(f"{cls.__name__}.{name}: V3 node classes cannot be changed while they run")

    return Locked(cls.__name__, (cls,), {"hidden": _Hidden(hidden), "__module__": cls.__module__})


class NodeClass:
    """The facts of one class. Attributes raise what the class's own code raises."""

    def __init__(self, name: str, cls: Any) -> None:
        self.name = name
        self.cls = cls
        self.is_v3 = hasattr(cls, "define_schema") or hasattr(cls, "GET_SCHEMA")

    @cached_property
    def input_types(self) -> Mapping[str, Any]:
        """The declaration: group -> name -> (type, options)."""
        declared: Mapping[str, Any] = self.cls.INPUT_TYPES()
        return declared

    def input(self, name: str) -> InputInfo:
        """(type, group, options) of an input; (None, None, {}) when it is not declared."""
        return input_info(self.input_types, name)

    def declared_inputs(self) -> Iterator[tuple[str, bool]]:
        """(name, is required) in the order of declaration."""
        required = self.input_types.get("required") or {}
        for name in required:
            yield name, True
        for name in self.input_types.get("optional") or {}:
            if not dict.__contains__(required, name) if isinstance(required, dict) else name not in required:
                yield name, False

    def is_lazy(self, name: str) -> bool:
        """Whether the input is evaluated only on demand."""
        return bool(self.input(name)[2].get("lazy"))

    @cached_property
    def hidden(self) -> dict[str, str]:
        """Parameter name -> hidden kind, without the kinds nobody knows."""
        found = {}
        for name, spec in (self.input_types.get("hidden") or {}).items():
            kind = spec[0] if isinstance(spec, tuple | list) and spec else spec
            kind = getattr(kind, "value", kind)
            if isinstance(kind, str) and kind.upper() in HIDDEN_KINDS:
                found[name] = kind.upper()
        return found

    @property
    def function(self) -> str:
        """Name of the method that a run calls."""
        return str(self.cls.FUNCTION)

    @cached_property
    def is_output(self) -> bool:
        """Whether it is a root of execution."""
        return getattr(self.cls, "OUTPUT_NODE", False) is True

    @cached_property
    def is_async(self) -> bool:
        """Whether a run is a coroutine."""
        return inspect.iscoroutinefunction(getattr(self.cls, str(getattr(self.cls, "FUNCTION", "")), None))

    @cached_property
    def input_is_list(self) -> bool:
        """Whether one call gets whole lists."""
        return bool(getattr(self.cls, "INPUT_IS_LIST", False))

    @cached_property
    def return_types(self) -> tuple[Any, ...]:
        """A type per output slot."""
        return tuple(self.cls.RETURN_TYPES)

    @cached_property
    def output_is_list(self) -> tuple[bool, ...] | None:
        """Which slots give lists; None when the class does not say."""
        declared = getattr(self.cls, "OUTPUT_IS_LIST", None)
        return None if declared is None else tuple(declared)

    @cached_property
    def uses_global_rng(self) -> bool:
        """Whether its code draws from the process-wide generators (set by the pack loader)."""
        return bool(getattr(self.cls, "USES_GLOBAL_RNG", False))

    @cached_property
    def needs_id_in_key(self) -> bool:
        """Whether two nodes of the class never stand for each other in the cache."""
        if getattr(self.cls, "NOT_IDEMPOTENT", False):
            return True
        return not self.is_v3 and "UNIQUE_ID" in self.hidden.values()

    @cached_property
    def validator(self) -> str | None:
        """Name of the custom validator, if there is one."""
        return self._hook("VALIDATE_INPUTS", "validate_inputs")

    @cached_property
    def change_check(self) -> str | None:
        """Name of the change hook, if there is one."""
        return self._hook("IS_CHANGED", "fingerprint_inputs")

    @cached_property
    def lazy_check(self) -> str | None:
        """Name of the method that says which lazy inputs are needed, if there is one."""
        return self._hook("check_lazy_status", "check_lazy_status")

    def _hook(self, v1: str, v3: str) -> str | None:
        if not self.is_v3:
            return v1 if getattr(self.cls, v1, None) is not None else None
        owner, base = _owner(self.cls, v3), _owner(self.cls, "EXECUTE_NORMALIZED")
        # the API's base class, which defines the normalised execute, also holds a placeholder for every hook
        return v3 if owner is not None and (owner is not base or base is self.cls) else None

    def on_class(self, hidden: Mapping[str, Any]) -> Any:
        """What class-level hooks are called on: the class (V1), or a clone with `cls.hidden` (V3).

        hidden  lower-case attribute name -> value, as V3 nodes read it
        """
        if not self.is_v3:
            return self.cls
        if hasattr(self.cls, "PREPARE_CLASS_CLONE"):
            return self.cls.PREPARE_CLASS_CLONE(dict(hidden))
        return _locked_clone(self.cls, hidden)


def _owner(cls: type, name: str) -> type | None:
    return next((base for base in cls.__mro__ if name in vars(base)), None)


class NodeClasses:
    """The classes of one prompt, each looked up and described once."""

    def __init__(self, registry: NodeRegistry) -> None:
        self._registry = registry
        self._known: dict[str, NodeClass] = {}

    def get(self, name: Any) -> NodeClass:
        """Raises UnknownNodeClass."""
        known = self._known.get(name) if isinstance(name, str) else None
        if known is None:
            if not isinstance(name, str) or name not in self._registry.classes:
                raise UnknownNodeClass(class_type=str(name))
            known = self._known[name] = NodeClass(name, self._registry.classes[name])
        return known

    def of(self, node: Mapping[str, Any]) -> NodeClass:
        """The class of a prompt's node. Raises UnknownNodeClass."""
        return self.get(node.get("class_type"))
