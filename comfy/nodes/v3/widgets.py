"""The V3 types that have a control in the front end (contract: custom-nodes.md section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

from comfy.nodes.v3.base import ComfyType, Output, WidgetInput, comfytype, plain, without_none


class FolderType(str, Enum):
    """A folder for pictures."""

    input = "input"
    output = "output"
    temp = "temp"


class UploadType(str, Enum):
    """The button beside a combo that uploads a file."""

    image = "image_upload"
    audio = "audio_upload"
    video = "video_upload"
    model = "file_upload"


class NumberDisplay(str, Enum):
    """How a number is shown."""

    number = "number"
    slider = "slider"


class RemoteOptions:
    """Choices that the front end gets from a route."""

    def __init__(
        self,
        route: str,
        refresh_button: bool,
        control_after_refresh: str = "first",
        timeout: int | None = None,
        max_retries: int | None = None,
        refresh: int | None = None,
    ) -> None:
        self.route = route
        self.refresh_button = refresh_button
        self.control_after_refresh = control_after_refresh
        self.timeout = timeout
        self.max_retries = max_retries
        self.refresh = refresh

    def as_dict(self) -> dict[str, Any]:
        """The `remote` option of `/object_info`."""
        return without_none(vars(self))


def options_of(options: Sequence[Any] | type[Enum] | None) -> list[Any] | None:
    """The choices as a list; an Enum class gives its members' values."""
    if isinstance(options, type) and issubclass(options, Enum):
        return [member.value for member in options]
    return None if options is None else [plain(option) for option in options]


class _Number(WidgetInput):
    """A number with a range."""

    def __init__(
        self,
        id: str,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        lazy: bool | None = None,
        default: float | None = None,
        min: float | None = None,
        max: float | None = None,
        step: float | None = None,
        *,
        round: float | None = None,
        control_after_generate: bool | None = None,
        display_mode: NumberDisplay | str | None = None,
        **more: Any,
    ) -> None:
        super().__init__(id, display_name, optional, tooltip, lazy, default, **more)
        self.min, self.max, self.step, self.round = min, max, step, round
        self.control_after_generate = control_after_generate
        self.display_mode = display_mode

    def options(self) -> dict[str, Any]:
        own = {"min": self.min, "max": self.max, "step": self.step, "round": self.round}
        return {**super().options(), **own, "control_after_generate": self.control_after_generate, "display": self.display_mode}


@comfytype("INT")
class Int(ComfyType):
    """A whole number."""

    Type = int
    Input = _Number


class _Float(_Number):
    """A number; `round` follows `step` in the order of arguments."""

    def __init__(
        self,
        id: str,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        lazy: bool | None = None,
        default: float | None = None,
        min: float | None = None,
        max: float | None = None,
        step: float | None = None,
        round: float | None = None,
        display_mode: NumberDisplay | str | None = None,
        **more: Any,
    ) -> None:
        super().__init__(id, display_name, optional, tooltip, lazy, default, min, max, step, round=round, display_mode=display_mode, **more)


@comfytype("FLOAT")
class Float(ComfyType):
    """A number."""

    Type = float
    Input = _Float


@comfytype("BOOLEAN")
class Boolean(ComfyType):
    """A switch."""

    Type = bool

    class Input(WidgetInput):
        """A switch; the labels name its two states."""

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: bool | None = None,
            label_on: str | None = None,
            label_off: str | None = None,
            **more: Any,
        ) -> None:
            super().__init__(id, display_name, optional, tooltip, lazy, default, **more)
            self.label_on, self.label_off = label_on, label_off

        def options(self) -> dict[str, Any]:
            return {**super().options(), "label_on": self.label_on, "label_off": self.label_off}


@comfytype("STRING")
class String(ComfyType):
    """Text."""

    Type = str

    class Input(WidgetInput):
        """A text field, of one line or many."""

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            multiline: bool = False,
            placeholder: str | None = None,
            default: str | None = None,
            dynamic_prompts: bool | None = None,
            **more: Any,
        ) -> None:
            super().__init__(id, display_name, optional, tooltip, lazy, default, **more)
            self.multiline, self.placeholder, self.dynamic_prompts = multiline, placeholder, dynamic_prompts

        def options(self) -> dict[str, Any]:
            own = {"multiline": self.multiline, "placeholder": self.placeholder, "dynamicPrompts": self.dynamic_prompts}
            return {**super().options(), **own}


@comfytype("COMBO")
class Combo(ComfyType):
    """One of several choices."""

    Type = str

    class Input(WidgetInput):
        """The choices, or where the front end gets them."""

        def __init__(
            self,
            id: str,
            options: Sequence[Any] | type[Enum] | None = None,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: Any = None,
            control_after_generate: bool | None = None,
            upload: UploadType | None = None,
            image_folder: FolderType | str | None = None,
            remote: RemoteOptions | None = None,
            **more: Any,
        ) -> None:
            super().__init__(id, display_name, optional, tooltip, lazy, default, **more)
            self.choices = options_of(options)
            self.control_after_generate = control_after_generate
            self.upload, self.image_folder, self.remote = upload, image_folder, remote

        def options(self) -> dict[str, Any]:
            own = {
                "multiselect": False,
                "options": self.choices,
                "control_after_generate": self.control_after_generate,
                "image_folder": self.image_folder,
                "remote": self.remote.as_dict() if self.remote is not None else None,
            }
            if self.upload is not None:
                own[str(plain(self.upload))] = True
            return {**super().options(), **own}

    class Output(Output):
        """A combo's choice; its type is the list of choices."""

        def __init__(
            self,
            id: str | None = None,
            display_name: str | None = None,
            options: Sequence[Any] | type[Enum] | None = None,
            tooltip: str | None = None,
            is_output_list: bool = False,
        ) -> None:
            super().__init__(id, display_name, tooltip, is_output_list)
            self.options = options_of(options) or []

        @property
        def io_type(self) -> Any:
            return self.options


@comfytype("COMBO")
class MultiCombo(ComfyType):
    """Several of several choices."""

    Type = list

    class Input(Combo.Input):
        """Choices of which any number may be picked."""

        def __init__(
            self,
            id: str,
            options: Sequence[Any] | type[Enum],
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: list[Any] | None = None,
            placeholder: str | None = None,
            chip: bool | None = None,
            **more: Any,
        ) -> None:
            super().__init__(id, options, display_name, optional, tooltip, lazy, default, **more)
            self.placeholder, self.chip = placeholder, chip

        def options(self) -> dict[str, Any]:
            return {**super().options(), "multiselect": True, "multi_select": True, "placeholder": self.placeholder, "chip": self.chip}


@comfytype("WEBCAM")
class Webcam(ComfyType):
    """A picture from the camera."""

    Type = str
    Input = WidgetInput
