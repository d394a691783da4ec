"""The V3 types of data, of any type, and those whose inputs depend on others (contract: custom-nodes.md section 4.3)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from comfy.nodes.v3.base import ComfyType, Input, Output, WidgetInput, comfytype, data_type
from comfy.nodes.v3.iotype import ANY, IoType

#: class name -> wire name
DATA_TYPES = {
    "Image": "IMAGE",
    "Mask": "MASK",
    "Latent": "LATENT",
    "Conditioning": "CONDITIONING",
    "Model": "MODEL",
    "Clip": "CLIP",
    "Vae": "VAE",
    "ControlNet": "CONTROL_NET",
    "ClipVision": "CLIP_VISION",
    "ClipVisionOutput": "CLIP_VISION_OUTPUT",
    "StyleModel": "STYLE_MODEL",
    "Gligen": "GLIGEN",
    "UpscaleModel": "UPSCALE_MODEL",
    "Sampler": "SAMPLER",
    "Sigmas": "SIGMAS",
    "Noise": "NOISE",
    "Guider": "GUIDER",
    "Audio": "AUDIO",
    "Video": "VIDEO",
    "SVG": "SVG",
    "AudioEncoder": "AUDIO_ENCODER",
    "AudioEncoderOutput": "AUDIO_ENCODER_OUTPUT",
    "LoraModel": "LORA_MODEL",
    "LossMap": "LOSS_MAP",
    "Voxel": "VOXEL",
    "Mesh": "MESH",
    "Hooks": "HOOKS",
    "HookKeyframes": "HOOK_KEYFRAMES",
    "TimestepsRange": "TIMESTEPS_RANGE",
    "LatentOperation": "LATENT_OPERATION",
    "FlowControl": "FLOW_CONTROL",
    "Accumulation": "ACCUMULATION",
    "Load3D": "LOAD_3D",
    "Load3DAnimation": "LOAD_3D_ANIMATION",
    "Load3DCamera": "LOAD3D_CAMERA",
    "Photomaker": "PHOTOMAKER",
    "Point": "POINT",
    "FaceAnalysis": "FACE_ANALYSIS",
    "BBOX": "BBOX",
    "SEGS": "SEGS",
    "WanCameraEmbedding": "WAN_CAMERA_EMBEDDING",
    "MODEL_PATCH": "MODEL_PATCH",
    "ModelPatch": "MODEL_PATCH",
}

DATA: dict[str, type[ComfyType]] = {name: data_type(name, io_type) for name, io_type in DATA_TYPES.items()}

AnyType = data_type("AnyType", ANY, "Any value.")


@comfytype("COMFY_MULTITYPED_V3")
class MultiType(ComfyType):
    """One input that takes several types."""

    class Input(Input):
        """`id` is a name, or an Input with a widget that the union starts with."""

        def __init__(
            self,
            id: str | Input,
            types: Sequence[Any],
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
            **more: Any,
        ) -> None:
            self.widget = copy.copy(id) if isinstance(id, Input) else None
            if self.widget is not None:
                widget = self.widget
                display_name = display_name if display_name is not None else widget.display_name
                tooltip = tooltip if tooltip is not None else widget.tooltip
                lazy = lazy if lazy is not None else widget.lazy
                optional = optional or widget.optional
                name = widget.id
            else:
                name = str(id)
            super().__init__(name, display_name, optional, tooltip, lazy, extra_dict, **more)
            self.types = list(types)

        @property
        def io_types(self) -> list[Any]:
            """The types, as given."""
            return self.types

        def get_io_type(self) -> str:
            names = [str(one.io_type) for one in self.types]
            if self.widget is not None:
                names.insert(0, str(self.widget.get_io_type()))
            return IoType(",".join(dict.fromkeys(names)))

        def as_dict(self) -> dict[str, Any]:
            return {**(self.widget.as_dict() if self.widget is not None else {}), **super().as_dict()}


@comfytype("COMFY_AUTOGROW_V3")
class AutogrowDynamic(ComfyType):
    """An input that repeats: `min` copies of a template are required, further ones up to `max` are optional."""

    class Input(Input):
        """The template's id with a number from 1 names each copy."""

        def __init__(self, id: str, template_input: Input, min: int = 1, max: int | None = None, **more: Any) -> None:
            super().__init__(id, **more)
            self.template_input = template_input
            self.min = min
            self.max = max if max is not None else min

        def get_all(self) -> list[Any]:
            return [self._copy(number) for number in range(1, self.max + 1)]

        def _copy(self, number: int) -> Any:
            made = copy.copy(self.template_input)
            made.id = f"{self.template_input.id}{number}"
            if made.display_name is not None:
                made.display_name = f"{made.display_name}{number}"
            made.optional = self.optional or self.template_input.optional or number > self.min
            return made


@comfytype("COMFY_MATCHTYPE_V3")
class MatchType(ComfyType):
    """Inputs and outputs that agree on one type, whichever is connected first."""

    class Template:
        """What the matching slots share."""

        def __init__(self, template_id: str, allowed_types: Any = None) -> None:
            self.template_id = template_id
            allowed = allowed_types if allowed_types is not None else AnyType
            self.allowed_types = list(allowed) if isinstance(allowed, list | tuple) else [allowed]

        @property
        def io_type(self) -> str:
            """The union of what is allowed."""
            return IoType(",".join(str(one.io_type) for one in self.allowed_types))

    class Input(Input):
        """An input whose type follows the template."""

        def __init__(self, id: str, template: Any, **more: Any) -> None:
            super().__init__(id, **more)
            self.template = template

        def get_io_type(self) -> str:
            return str(self.template.io_type)

    class Output(Output):
        """An output whose type follows the template."""

        def __init__(
            self,
            template: Any,
            id: str | None = None,
            display_name: str | None = None,
            tooltip: str | None = None,
            is_output_list: bool = False,
        ) -> None:
            super().__init__(id, display_name, tooltip, is_output_list)
            self.template = template

        @property
        def io_type(self) -> Any:
            return self.template.io_type


@comfytype("COMBO")
class ComboDynamic(ComfyType):
    """A combo whose choice decides which further inputs there are; all of them are declared as optional."""

    class Option:
        """One choice and its inputs."""

        def __init__(self, key: str, inputs: Sequence[Input]) -> None:
            self.key = key
            self.inputs = list(inputs)

    class Input(WidgetInput):
        """The combo itself."""

        def __init__(self, id: str, options: Sequence[Any], **more: Any) -> None:
            super().__init__(id, **more)
            self.choices = list(options)

        def options(self) -> dict[str, Any]:
            return {**super().options(), "multiselect": False, "options": [choice.key for choice in self.choices]}

        def get_all(self) -> list[Any]:
            further: dict[str, Any] = {}
            for choice in self.choices:
                for one in choice.inputs:
                    made = copy.copy(one)
                    made.optional = True
                    further.setdefault(made.id, made)
            return [self, *further.values()]
