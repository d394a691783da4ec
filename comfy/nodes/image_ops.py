"""Nodes on pictures: resize, invert, batch, pad. Maths: comfy/pixels; rules: goldens README, section G."""

from __future__ import annotations

from typing import Any

import torch

from comfy.nodes.conventions import CROP_METHODS, IMAGE_UPSCALE_METHODS, MAX_RESOLUTION
from comfy.pixels.batch import batch_images
from comfy.pixels.compositing import outpaint
from comfy.pixels.resize import keep_aspect, resize_images


class ImageScale:
    """Resize to a size; a side of 0 keeps the aspect."""

    CATEGORY, FUNCTION, RETURN_TYPES = "image/upscaling", "upscale", ("IMAGE",)
    upscale_methods = IMAGE_UPSCALE_METHODS
    crop_methods = CROP_METHODS

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        side = {"default": 512, "min": 0, "max": MAX_RESOLUTION, "step": 1}
        return {
            "required": {
                "image": ("IMAGE",),
                "upscale_method": (cls.upscale_methods,),
                "width": ("INT", dict(side)),
                "height": ("INT", dict(side)),
                "crop": (cls.crop_methods,),
            }
        }

    def upscale(self, image: torch.Tensor, upscale_method: str, width: int, height: int, crop: str) -> tuple[torch.Tensor]:
        if width == 0 and height == 0:
            return (image,)
        width, height = keep_aspect(image.shape[2], image.shape[1], width, height)
        return (resize_images(image, width, height, upscale_method, crop),)


class ImageScaleBy:
    """Resize by a factor."""

    CATEGORY, FUNCTION, RETURN_TYPES = "image/upscaling", "upscale", ("IMAGE",)
    upscale_methods = IMAGE_UPSCALE_METHODS

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "upscale_method": (cls.upscale_methods,),
                "scale_by": ("FLOAT", {"default": 1.0, "min": 0.01, "max": 8.0, "step": 0.01}),
            }
        }

    def upscale(self, image: torch.Tensor, upscale_method: str, scale_by: float) -> tuple[torch.Tensor]:
        height, width = (max(1, round(side * scale_by)) for side in image.shape[1:3])
        return (resize_images(image, width, height, upscale_method),)


class ImageInvert:
    """The negative: 1 - picture."""

    CATEGORY, FUNCTION, RETURN_TYPES = "image", "invert", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",)}}

    def invert(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        return (1.0 - image,)


class ImageBatch:
    """Two batches as one, the second resized to the first."""

    CATEGORY, FUNCTION, RETURN_TYPES = "image", "batch", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image1": ("IMAGE",), "image2": ("IMAGE",)}}

    def batch(self, image1: torch.Tensor, image2: torch.Tensor) -> tuple[torch.Tensor]:
        return (batch_images(image1, image2),)


class ImagePadForOutpaint:
    """A grey border, and the mask that lets an inpainting run fill it."""

    CATEGORY, FUNCTION, RETURN_TYPES = "image", "expand_image", ("IMAGE", "MASK")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        border = {"default": 0, "min": 0, "max": MAX_RESOLUTION, "step": 8}
        return {
            "required": {
                "image": ("IMAGE",),
                "left": ("INT", dict(border)),
                "top": ("INT", dict(border)),
                "right": ("INT", dict(border)),
                "bottom": ("INT", dict(border)),
                "feathering": ("INT", {"default": 40, "min": 0, "max": MAX_RESOLUTION, "step": 1}),
            }
        }

    def expand_image(
        self, image: torch.Tensor, left: int, top: int, right: int, bottom: int, feathering: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return outpaint(image, left, top, right, bottom, feathering)


NODE_CLASS_MAPPINGS = {
    "ImageScale": ImageScale,
    "ImageScaleBy": ImageScaleBy,
    "ImageInvert": ImageInvert,
    "ImageBatch": ImageBatch,
    "ImagePadForOutpaint": ImagePadForOutpaint,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "ImageScale": "Upscale Image",
    "ImageScaleBy": "Upscale Image By",
    "ImageInvert": "Invert Image",
    "ImageBatch": "Batch Images",
    "ImagePadForOutpaint": "Pad Image for Outpainting",
}
