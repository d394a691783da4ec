"""Nodes on masks. Maths: comfy/pixels/masks.py and compositing.py; rules: goldens README, section G."""

from __future__ import annotations

from typing import Any

import torch

from comfy.errors import InputUnusable
from comfy.nodes.conventions import MAX_RESOLUTION, Latent, image_alpha_fix, with_samples
from comfy.nodes.image import PreviewImage, Saved
from comfy.pixels import masks
from comfy.pixels.compositing import composite

CHANNELS = ["red", "green", "blue", "alpha"]


def _int(default: int, least: int = 0, most: int = MAX_RESOLUTION, step: int = 1) -> tuple[str, dict[str, int]]:
    return ("INT", {"default": default, "min": least, "max": most, "step": step})


class LatentCompositeMasked:
    """Lay one latent over another where a mask allows it."""

    CATEGORY, FUNCTION, RETURN_TYPES = "latent", "composite", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "destination": ("LATENT",),
                "source": ("LATENT",),
                "x": _int(0, step=8),
                "y": _int(0, step=8),
                "resize_source": ("BOOLEAN", {"default": False}),
            },
            "optional": {"mask": ("MASK",)},
        }

    def composite(
        self, destination: Latent, source: Latent, x: int, y: int, resize_source: bool, mask: torch.Tensor | None = None
    ) -> tuple[Latent]:
        made = composite(destination["samples"], source["samples"], x, y, mask, 8, resize_source)
        return (with_samples(destination, made),)


class ImageCompositeMasked:
    """Lay one picture over another where a mask allows it."""

    CATEGORY, FUNCTION, RETURN_TYPES = "image", "composite", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "destination": ("IMAGE",),
                "source": ("IMAGE",),
                "x": _int(0),
                "y": _int(0),
                "resize_source": ("BOOLEAN", {"default": False}),
            },
            "optional": {"mask": ("MASK",)},
        }

    def composite(
        self, destination: torch.Tensor, source: torch.Tensor, x: int, y: int, resize_source: bool, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor]:
        destination, source = image_alpha_fix(destination, source)
        made = composite(destination.movedim(-1, 1), source.movedim(-1, 1), x, y, mask, 1, resize_source)
        return (made.movedim(1, -1),)


class MaskToImage:
    """A mask as a grey picture."""

    CATEGORY, FUNCTION, RETURN_TYPES = "mask", "mask_to_image", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": ("MASK",)}}

    def mask_to_image(self, mask: torch.Tensor) -> tuple[torch.Tensor]:
        return (masks.to_image(mask),)


class ImageToMask:
    """One channel of a picture as a mask."""

    CATEGORY, FUNCTION, RETURN_TYPES = "mask", "image_to_mask", ("MASK",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",), "channel": (CHANNELS,)}}

    def image_to_mask(self, image: torch.Tensor, channel: str) -> tuple[torch.Tensor]:
        index = CHANNELS.index(channel)
        if index >= image.shape[-1]:
            raise InputUnusable("The picture has no such channel.", channel=channel, channels=image.shape[-1])
        return (image[..., index],)


class ImageColorToMask:
    """Where a picture has exactly one colour."""

    CATEGORY, FUNCTION, RETURN_TYPES = "mask", "image_to_mask", ("MASK",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        color = {"default": 0, "min": 0, "max": 0xFFFFFF, "step": 1, "display": "color"}
        return {"required": {"image": ("IMAGE",), "color": ("INT", color)}}

    def image_to_mask(self, image: torch.Tensor, color: int) -> tuple[torch.Tensor]:
        return (masks.from_color(image, color),)


class SolidMask:
    """A mask with one value."""

    CATEGORY, FUNCTION, RETURN_TYPES = "mask", "solid", ("MASK",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "value": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}),
                "width": _int(512, 1),
                "height": _int(512, 1),
            }
        }

    def solid(self, value: float, width: int, height: int) -> tuple[torch.Tensor]:
        return (torch.full((1, height, width), value, dtype=torch.float32, device="cpu"),)


class InvertMask:
    """1 - mask."""

    CATEGORY, FUNCTION, RETURN_TYPES = "mask", "invert", ("MASK",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": ("MASK",)}}

    def invert(self, mask: torch.Tensor) -> tuple[torch.Tensor]:
        return (1.0 - mask,)


class CropMask:
    """A part of a mask."""

    CATEGORY, FUNCTION, RETURN_TYPES = "mask", "crop", ("MASK",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": ("MASK",), "x": _int(0), "y": _int(0), "width": _int(512, 1), "height": _int(512, 1)}}

    def crop(self, mask: torch.Tensor, x: int, y: int, width: int, height: int) -> tuple[torch.Tensor]:
        return (masks.crop(mask, x, y, width, height),)


class MaskComposite:
    """Combine two masks at a place."""

    CATEGORY, FUNCTION, RETURN_TYPES = "mask", "combine", ("MASK",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "destination": ("MASK",),
                "source": ("MASK",),
                "x": _int(0),
                "y": _int(0),
                "operation": (list(masks.COMPOSITE_OPERATIONS),),
            }
        }

    def combine(self, destination: torch.Tensor, source: torch.Tensor, x: int, y: int, operation: str) -> tuple[torch.Tensor]:
        return (masks.composite(destination, source, x, y, operation),)


class FeatherMask:
    """Fade a mask towards its sides."""

    CATEGORY, FUNCTION, RETURN_TYPES = "mask", "feather", ("MASK",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": ("MASK",), "left": _int(0), "top": _int(0), "right": _int(0), "bottom": _int(0)}}

    def feather(self, mask: torch.Tensor, left: int, top: int, right: int, bottom: int) -> tuple[torch.Tensor]:
        return (masks.feather(mask, left, top, right, bottom),)


class GrowMask:
    """Make the marked place larger, or smaller with a negative number."""

    CATEGORY, FUNCTION, RETURN_TYPES = "mask", "expand_mask", ("MASK",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "mask": ("MASK",),
                "expand": _int(0, -MAX_RESOLUTION),
                "tapered_corners": ("BOOLEAN", {"default": True}),
            }
        }

    def expand_mask(self, mask: torch.Tensor, expand: int, tapered_corners: bool) -> tuple[torch.Tensor]:
        return (masks.grow(mask, expand, tapered_corners),)


class ThresholdMask:
    """1 where the mask is over a value, 0 elsewhere."""

    CATEGORY, FUNCTION, RETURN_TYPES = "mask", "image_to_mask", ("MASK",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": ("MASK",), "value": ("FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.01})}}

    def image_to_mask(self, mask: torch.Tensor, value: float) -> tuple[torch.Tensor]:
        return (masks.threshold(mask, value),)


class MaskPreview(PreviewImage):
    """Show a mask as a grey picture."""

    CATEGORY, FUNCTION = "mask", "execute"
    DESCRIPTION = "Shows the mask and saves it to the temp folder only."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": ("MASK",)}, "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}}

    def execute(self, mask: torch.Tensor, filename_prefix: str = "ComfyUI", prompt: Any = None, extra_pnginfo: Any = None) -> Saved:
        return self.save_images(masks.to_image(mask), filename_prefix, prompt, extra_pnginfo)


NODE_CLASS_MAPPINGS = {
    "LatentCompositeMasked": LatentCompositeMasked,
    "ImageCompositeMasked": ImageCompositeMasked,
    "MaskToImage": MaskToImage,
    "ImageToMask": ImageToMask,
    "ImageColorToMask": ImageColorToMask,
    "SolidMask": SolidMask,
    "InvertMask": InvertMask,
    "CropMask": CropMask,
    "MaskComposite": MaskComposite,
    "FeatherMask": FeatherMask,
    "GrowMask": GrowMask,
    "ThresholdMask": ThresholdMask,
    "MaskPreview": MaskPreview,
}

NODE_DISPLAY_NAME_MAPPINGS = {"ImageToMask": "Convert Image to Mask", "MaskToImage": "Convert Mask to Image"}
