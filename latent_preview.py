"""Where custom nodes import previews from. Assigning one of the replaceable names here changes what the core calls."""

from comfy.config import LatentPreviewMethod
from comfy.models.previews import get_previewer
from comfy.nodes.stepping import prepare_callback
from comfy.replaceable import write_through
from comfy.sampling.preview import (
    MAX_PREVIEW_RESOLUTION,
    Latent2RGBPreviewer,
    LatentPreviewer,
    TAESDPreviewerImpl,
    preview_to_image,
)

__all__ = [
    "MAX_PREVIEW_RESOLUTION",
    "Latent2RGBPreviewer",
    "LatentPreviewMethod",
    "LatentPreviewer",
    "TAESDPreviewerImpl",
    "get_previewer",
    "prepare_callback",
    "preview_to_image",
]

write_through(__name__)
