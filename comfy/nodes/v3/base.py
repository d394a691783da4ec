"""What every V3 type is made of: `Input`, `WidgetInput`, `Output`, and the class decorator that names a type."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, ClassVar, TypeVar

from comfy.nodes.v3.iotype import IoType

T = TypeVar("T", bound=type)


def plain(value: Any) -> Any:
    """JSON form of an option: enum members by value."""
    return value.value if isinstance(value, Enum) else value


def without_none(options: dict[str, Any]) -> dict[str, Any]:
    """Options that were not given are not sent."""
    return {key: plain(value) for key, value in options.items() if value is not None}


class ComfyType:
    """A type of the wire with its Input and Output classes; made by `comfytype`."""

    Type: Any = Any
    io_type: ClassVar[str] = ""
    Input: ClassVar[Any]
    Output: ClassVar[Any]


class Input:
    """One input of a schema. `Parent` is the type it belongs to."""

    Parent: ClassVar[Any] = None

    def __init__(
        self,
        id: str,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        lazy: bool | None = None,
        extra_dict: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        self.id = id
        self.display_name = display_name
        self.optional = optional
        self.tooltip = tooltip
        self.lazy = lazy
        self.extra_dict = extra_dict or {}
        self.more = more

    def options(self) -> dict[str, Any]:
        """The options that this kind of input adds; None means not given."""
        return dict(self.more)

    def as_dict(self) -> dict[str, Any]:
        """The options object of `/object_info`."""
        own = {"display_name": self.display_name, "tooltip": self.tooltip, "lazy": self.lazy}
        return without_none({**own, **self.options(), **self.extra_dict})

    def get_io_type(self) -> str:
        """The wire type."""
        return IoType(self.Parent.io_type)

    def get_all(self) -> list[Input]:
        """The inputs that this one stands for: itself, unless it is dynamic."""
        return [self]

    def validate(self) -> None:
        """Raise ValueError when it is declared wrongly."""
        if not isinstance(self.id, str) or not self.id:
            raise ValueError("an input needs an id")


class WidgetInput(Input):
    """An input with a control in the front end."""

    def __init__(
        self,
        id: str,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        lazy: bool | None = None,
        default: Any = None,
        socketless: bool | None = None,
        widget_type: str | None = None,
        force_input: bool | None = None,
        extra_dict: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(id, display_name, optional, tooltip, lazy, extra_dict, **more)
        self.default = default
        self.socketless = socketless
        self.widget_type = widget_type
        self.force_input = force_input

    def options(self) -> dict[str, Any]:
        own = {"default": self.default, "socketless": self.socketless, "widgetType": self.widget_type, "forceInput": self.force_input}
        return {**own, **super().options()}


class Output:
    """One output of a schema."""

    Parent: ClassVar[Any] = None

    def __init__(
        self, id: str | None = None, display_name: str | None = None, tooltip: str | None = None, is_output_list: bool = False
    ) -> None:
        self.id = id
        self.display_name = display_name
        self.tooltip = tooltip
        self.is_output_list = is_output_list

    @property
    def io_type(self) -> Any:
        """The wire type; a list of choices for combos."""
        return IoType(self.Parent.io_type)

    def get_io_type(self) -> Any:
        """The same as a method."""
        return self.io_type


def comfytype(io_type: str, **_: Any) -> Callable[[T], T]:
    """Class decorator: name the wire type, and give the class its own Input and Output that know it."""

    def name(cls: T) -> T:
        cls.io_type = IoType(io_type)  # type: ignore[attr-defined]
        for kind, default in (("Input", Input), ("Output", Output)):
            base = getattr(cls, kind, default)
            qualified = {"Parent": cls, "__module__": cls.__module__, "__qualname__": f"{cls.__qualname__}.{kind}", "__doc__": base.__doc__}
            setattr(cls, kind, type(kind, (base,), qualified))
        return cls

    return name


def data_type(name: str, io_type: str, doc: str | None = None) -> type[ComfyType]:
    """A type without a widget: only its name on the wire."""
    made = type(name, (ComfyType,), {"__doc__": doc or f"{io_type} on the wire.", "__module__": __name__})
    return comfytype(io_type)(made)


def Custom(io_type: str) -> type[ComfyType]:
    """A new type for a pack's own values."""
    return data_type(io_type, io_type)
