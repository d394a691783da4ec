"""The base class of V3 nodes: class methods over a schema, with the V1 names derived (contract: custom-nodes.md 4.1, 4.4)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn, cast

from comfy.errors import NodeError
from comfy.nodes.v3.schema import Schema


class NodeOutputInvalid(NodeError):
    """The node returned something that is no node output."""


class HiddenHolder:
    """`cls.hidden`: what the node asked the executor for; any other attribute reads None."""

    unique_id: str | None = None
    prompt: Any = None
    extra_pnginfo: Any = None
    dynprompt: Any = None
    auth_token_comfy_org: str | None = None
    api_key_comfy_org: str | None = None

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        for name, value in (values or {}).items():
            setattr(self, str(getattr(name, "name", name)), value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> HiddenHolder:
        """The same from a dict of names or of `Hidden` members."""
        return cls(values)


class NodeOutput:
    """What `execute` returns: a value per slot, data for the front end, a graph to run instead, or a blocker."""

    def __init__(self, *args: Any, ui: Any = None, expand: dict[str, Any] | None = None, block_execution: str | None = None) -> None:
        self.args = args
        self.ui = ui
        self.expand = expand
        self.block_execution = block_execution

    @property
    def result(self) -> tuple[Any, ...] | None:
        """The values; None when there are none."""
        return self.args if self.args else None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NodeOutput:
        """From V1's dict form with `result`, `ui` and `expand`."""
        return cls(*(data.get("result") or ()), ui=data.get("ui"), expand=data.get("expand"))

    def __getitem__(self, index: int) -> Any:
        return self.args[index]


class _ClassProperty:
    """A read-only property of the class itself."""

    def __init__(self, getter: Callable[[Any], Any]) -> None:
        self.getter = getter
        self.__doc__ = getter.__doc__

    def __get__(self, instance: Any, owner: Any) -> Any:
        return self.getter(owner)


class _Locked(type):
    """The metaclass of the clone that runs: its attributes cannot be set."""

    def __setattr__(cls, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"{cls.__name__}.{name}: a V3 node keeps no state; its class cannot be changed while it runs")


def _is_blocker(value: Any) -> bool:
    """Whether it is a `comfy_execution.graph.ExecutionBlocker`: a class of a higher layer, known here by its name."""
    return any(base.__name__ == "ExecutionBlocker" for base in type(value).__mro__)


class ComfyNode:
    """Subclass it, give `define_schema` and `execute`; all methods are class methods, and there is no instance."""

    RELATIVE_PYTHON_MODULE: ClassVar[str | None] = None
    hidden: ClassVar[Any] = HiddenHolder()

    # -- what a node gives ------------------------------------------------------------------------------------------------

    @classmethod
    def define_schema(cls) -> Schema:
        """The node's description; called often, so it must be cheap."""
        raise NodeOutputInvalid("The node class has no define_schema.", node=cls.__name__)

    @classmethod
    def execute(cls, *args: Any, **kwargs: Any) -> Any:
        """The node's work; may be a coroutine function."""
        raise NodeOutputInvalid("The node class has no execute.", node=cls.__name__)

    @classmethod
    def validate_inputs(cls, *args: Any, **kwargs: Any) -> bool | str:
        """True, or what is wrong; counts only when a node gives its own."""
        return True

    @classmethod
    def fingerprint_inputs(cls, *args: Any, **kwargs: Any) -> Any:
        """A value that changes when the node must run again; counts only when a node gives its own."""
        return None

    @classmethod
    def check_lazy_status(cls, *args: Any, **kwargs: Any) -> list[str]:
        """Names of lazy inputs that are needed; counts only when a node gives its own."""
        return [name for name, value in kwargs.items() if value is None]

    # -- what the executor uses -------------------------------------------------------------------------------------------

    @classmethod
    def GET_SCHEMA(cls) -> Schema:
        """The checked and completed schema. Raises ValueError for ids used twice."""
        schema = cls.define_schema()
        schema.validate()
        schema.finalize()
        return schema

    FINALIZE_SCHEMA = GET_SCHEMA

    @classmethod
    def VALIDATE_CLASS(cls) -> None:
        """Raise when the class lacks its own `define_schema` or `execute`."""
        for name in ("define_schema", "execute"):
            if getattr(cls, name).__func__ is vars(ComfyNode)[name].__func__:
                raise NodeOutputInvalid(f"The node class has no {name}.", node=cls.__name__)

    @classmethod
    def GET_NODE_INFO_V1(cls) -> dict[str, Any]:
        """The node as `/object_info` shows it."""
        return cls.GET_SCHEMA().info_v1(cls.RELATIVE_PYTHON_MODULE or "nodes")

    @classmethod
    def GET_NODE_INFO_V3(cls) -> dict[str, Any]:
        """The node in the V3 form."""
        return cls.GET_SCHEMA().info_v3(cls.RELATIVE_PYTHON_MODULE or "nodes")

    @classmethod
    def INPUT_TYPES(cls, include_hidden: bool = True, return_schema: bool = False) -> Any:
        """V1's declaration of the inputs; with `return_schema`, (declaration, schema)."""
        schema = cls.GET_SCHEMA()
        declared = schema.input_types(include_hidden)
        return (declared, schema) if return_schema else declared

    @classmethod
    def PREPARE_CLASS_CLONE(cls, hidden: Mapping[str, Any] | None = None) -> type[ComfyNode]:
        """A subclass for one call, which cannot be changed, with `hidden` (names -> values) as its `cls.hidden`."""
        own = {"hidden": HiddenHolder(hidden), "__module__": cls.__module__, "__doc__": cls.__doc__}
        return cast("type[ComfyNode]", _Locked(cls.__name__, (cls,), own))

    @classmethod
    def EXECUTE_NORMALIZED(cls, *args: Any, **kwargs: Any) -> NodeOutput:
        """Run `execute` and bring what it returns into one form. Raises NodeOutputInvalid, and what the node raises."""
        return cls._normalized(cls.execute(*args, **kwargs))

    @classmethod
    async def EXECUTE_NORMALIZED_ASYNC(cls, *args: Any, **kwargs: Any) -> NodeOutput:
        """The same for a coroutine function."""
        return cls._normalized(await cls.execute(*args, **kwargs))

    @classmethod
    def _normalized(cls, returned: Any) -> NodeOutput:
        if returned is None:
            output = NodeOutput()
        elif isinstance(returned, NodeOutput):
            output = returned
        elif isinstance(returned, tuple):
            output = NodeOutput(*returned)
        elif isinstance(returned, dict):
            if _is_blocker(returned.get("result")):
                returned = {**returned, "result": cls._in_every_slot(returned["result"])}
            output = NodeOutput.from_dict(returned)
        elif _is_blocker(returned):
            output = NodeOutput(*cls._in_every_slot(returned))
        else:
            raise NodeOutputInvalid(node=cls.__name__, returned=type(returned).__name__)
        if output.expand is not None and not cls.GET_SCHEMA().enable_expand:
            raise NodeOutputInvalid("It expands, but its schema does not say enable_expand.", node=cls.__name__)
        return output

    @classmethod
    def _in_every_slot(cls, value: Any) -> tuple[Any, ...]:
        return (value,) * len(cls.GET_SCHEMA().outputs)

    # -- V1's names -------------------------------------------------------------------------------------------------------

    SCHEMA = _ClassProperty(lambda cls: cls.GET_SCHEMA())
    FUNCTION = _ClassProperty(lambda cls: "EXECUTE_NORMALIZED_ASYNC" if inspect.iscoroutinefunction(cls.execute) else "EXECUTE_NORMALIZED")
    RETURN_TYPES = _ClassProperty(lambda cls: tuple(one.io_type for one in cls.GET_SCHEMA().outputs))
    RETURN_NAMES = _ClassProperty(lambda cls: tuple(cls.GET_SCHEMA().output_names()))
    OUTPUT_IS_LIST = _ClassProperty(lambda cls: tuple(one.is_output_list for one in cls.GET_SCHEMA().outputs))
    OUTPUT_TOOLTIPS = _ClassProperty(lambda cls: tuple(one.tooltip for one in cls.GET_SCHEMA().outputs))
    INPUT_IS_LIST = _ClassProperty(lambda cls: cls.GET_SCHEMA().is_input_list)
    OUTPUT_NODE = _ClassProperty(lambda cls: cls.GET_SCHEMA().is_output_node)
    CATEGORY = _ClassProperty(lambda cls: cls.GET_SCHEMA().category)
    DESCRIPTION = _ClassProperty(lambda cls: cls.GET_SCHEMA().description)
    DEPRECATED = _ClassProperty(lambda cls: cls.GET_SCHEMA().is_deprecated)
    EXPERIMENTAL = _ClassProperty(lambda cls: cls.GET_SCHEMA().is_experimental)
    API_NODE = _ClassProperty(lambda cls: cls.GET_SCHEMA().is_api_node)
    NOT_IDEMPOTENT = _ClassProperty(lambda cls: cls.GET_SCHEMA().not_idempotent)


def mappings(classes: Sequence[type[ComfyNode]]) -> tuple[dict[str, type[ComfyNode]], dict[str, str]]:
    """(names -> classes, names -> titles) of V3 nodes, in the form that every node module exports.

    Titles of classes without a display name are left out: clients see null for them.
    """
    schemas = [cls.GET_SCHEMA() for cls in classes]
    names = {schema.node_id: cls for schema, cls in zip(schemas, classes)}
    return names, {schema.node_id: schema.display_name for schema in schemas if schema.display_name is not None}
