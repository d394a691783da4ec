"""`IO.IMAGE`, `ComfyNodeABC` and what else V1 nodes annotate themselves with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum
from typing import Any, TypedDict

from comfy.nodes.v3.iotype import IoType


class IO(IoType, Enum):
    """Names of types on the wire; like V3's they compare permissively by inequality (execution.md section 3.4)."""

    STRING = "STRING"
    IMAGE = "IMAGE"
    MASK = "MASK"
    LATENT = "LATENT"
    BOOLEAN = "BOOLEAN"
    INT = "INT"
    FLOAT = "FLOAT"
    COMBO = "COMBO"
    CONDITIONING = "CONDITIONING"
    SAMPLER = "SAMPLER"
    SIGMAS = "SIGMAS"
    GUIDER = "GUIDER"
    NOISE = "NOISE"
    CLIP = "CLIP"
    CONTROL_NET = "CONTROL_NET"
    VAE = "VAE"
    MODEL = "MODEL"
    LORA_MODEL = "LORA_MODEL"
    LOSS_MAP = "LOSS_MAP"
    CLIP_VISION = "CLIP_VISION"
    CLIP_VISION_OUTPUT = "CLIP_VISION_OUTPUT"
    STYLE_MODEL = "STYLE_MODEL"
    GLIGEN = "GLIGEN"
    UPSCALE_MODEL = "UPSCALE_MODEL"
    AUDIO = "AUDIO"
    WEBCAM = "WEBCAM"
    POINT = "POINT"
    FACE_ANALYSIS = "FACE_ANALYSIS"
    BBOX = "BBOX"
    SEGS = "SEGS"
    VIDEO = "VIDEO"
    ANY = "*"
    NUMBER = "FLOAT,INT"
    PRIMITIVE = "STRING,FLOAT,INT,BOOLEAN"

    __str__ = str.__str__
    __hash__ = str.__hash__


class InputTypeOptions(TypedDict, total=False):
    """Options of one input; any other key passes through to the front end."""

    default: Any
    defaultInput: bool
    forceInput: bool
    tooltip: str
    lazy: bool
    rawLink: bool
    min: float
    max: float
    step: float
    round: float
    label_on: str
    label_off: str
    placeholder: str
    multiline: bool
    dynamicPrompts: bool
    image_upload: bool
    image_folder: str
    remote: dict[str, Any]
    control_after_generate: bool
    options: list[Any]
    multi_select: dict[str, Any]


class HiddenInputTypeDict(TypedDict, total=False):
    """What V1 nodes ask the executor for."""

    node_id: str
    unique_id: str
    prompt: str
    extra_pnginfo: str
    dynprompt: str


class InputTypeDict(TypedDict, total=False):
    """What INPUT_TYPES returns."""

    required: dict[str, Any]
    optional: dict[str, Any]
    hidden: Any


class ComfyNodeABC(ABC):
    """A V1 node class with its attributes declared, for editors."""

    DESCRIPTION: str
    CATEGORY: str
    EXPERIMENTAL: bool
    DEPRECATED: bool
    API_NODE: bool | None
    OUTPUT_NODE: bool
    INPUT_IS_LIST: bool
    OUTPUT_IS_LIST: tuple[bool, ...]
    RETURN_TYPES: tuple[Any, ...]
    RETURN_NAMES: tuple[str, ...]
    OUTPUT_TOOLTIPS: tuple[str, ...]
    FUNCTION: str

    @classmethod
    @abstractmethod
    def INPUT_TYPES(cls) -> InputTypeDict:
        """The inputs: {"required": …, "optional": …, "hidden": …}."""


class CheckLazyMixin:
    """Asks for every lazy input that is still None."""

    def check_lazy_status(self, **kwargs: Any) -> list[str]:
        """Names of the inputs that are not evaluated yet."""
        return [name for name, value in kwargs.items() if value is None]


class FileLocator(TypedDict):
    """A file that the front end can ask for."""

    filename: str
    subfolder: str
    type: str
