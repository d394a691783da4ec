"""Nodes on pictures: crop, repeat, turn, stitch, size. Maths: comfy/pixels; rules: goldens README, section G."""

from __future__ import annotations

from typing import Any

import torch

from comfy.errors import InputUnusable
from comfy.nodes.conventions import FLIPS, MAX_RESOLUTION, ROTATIONS, quarters_of
from comfy.pixels.batch import repeat_to_batch_size
from comfy.pixels.blend import add_noise
from comfy.pixels.compositing import pad_centred
from comfy.pixels.resize import resize_images
from comfy.pixels.stitch import COLORS, stitch
from comfy_extras.saving_images import SaveAnimatedPNG, SaveAnimatedWEBP, SaveSVGNode


def _int(default: int, least: int, most: int = MAX_RESOLUTION) -> tuple[str, dict[str, int]]:
    return ("INT", {"default": default, "min": least, "max": most, "step": 1})


class ImageCrop:
    """A part of a picture."""

    CATEGORY, FUNCTION, RETURN_TYPES = "image/transform", "crop", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        size, place = _int(512, 1), _int(0, 0)
        return {"required": {"image": ("IMAGE",), "width": size, "height": size, "x": place, "y": place}}

    def crop(self, image: torch.Tensor, width: int, height: int, x: int, y: int) -> tuple[torch.Tensor]:
        x, y = min(x, image.shape[2] - 1), min(y, image.shape[1] - 1)
        return (image[:, y : y + height, x : x + width],)


class RepeatImageBatch:
    """A batch several times over."""

    CATEGORY, FUNCTION, RETURN_TYPES = "image/batch", "repeat", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",), "amount": ("INT", {"default": 1, "min": 1, "max": 4096})}}

    def repeat(self, image: torch.Tensor, amount: int) -> tuple[torch.Tensor]:
        return (repeat_to_batch_size(image, image.shape[0] * amount),)


class ImageFromBatch:
    """Some pictures of a batch."""

    CATEGORY, FUNCTION, RETURN_TYPES = "image/batch", "frombatch", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "batch_index": ("INT", {"default": 0, "min": 0, "max": 4095}),
                "length": ("INT", {"default": 1, "min": 1, "max": 4096}),
            }
        }

    def frombatch(self, image: torch.Tensor, batch_index: int, length: int) -> tuple[torch.Tensor]:
        start = min(image.shape[0] - 1, batch_index)
        return (image[start : start + length].clone(),)


class ImageAddNoise:
    """Noise of a seed on a picture."""

    CATEGORY, FUNCTION, RETURN_TYPES = "image", "repeat", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        seed = {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True, "tooltip": "The noise's seed."}
        return {
            "required": {
                "image": ("IMAGE",),
                "seed": ("INT", seed),
                "strength": ("FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.01}),
            }
        }

    def repeat(self, image: torch.Tensor, seed: int, strength: float) -> tuple[torch.Tensor]:
        return (add_noise(image, seed, strength),)


class ImageStitch:
    """Two pictures side by side."""

    CATEGORY, FUNCTION, RETURN_TYPES = "image/transform", "stitch", ("IMAGE",)
    DESCRIPTION = "Puts the second picture beside the first one; without a second one the first comes back as it is."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image1": ("IMAGE",),
                "direction": (["right", "down", "left", "up"], {"default": "right"}),
                "match_image_size": ("BOOLEAN", {"default": True}),
                "spacing_width": ("INT", {"default": 0, "min": 0, "max": 1024, "step": 2}),
                "spacing_color": (list(COLORS), {"default": "white"}),
            },
            "optional": {"image2": ("IMAGE",)},
        }

    def stitch(
        self,
        image1: torch.Tensor,
        direction: str,
        match_image_size: bool,
        spacing_width: int,
        spacing_color: str,
        image2: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor]:
        return (stitch(image1, image2, direction, match_image_size, spacing_width, spacing_color),)


class ResizeAndPadImage:
    """Fit a picture into a size, with a border."""

    CATEGORY, FUNCTION, RETURN_TYPES = "image/transform", "resize_and_pad", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "target_width": _int(512, 1),
                "target_height": _int(512, 1),
                "padding_color": (["white", "black"],),
                "interpolation": (["area", "bicubic", "nearest-exact", "bilinear", "lanczos"],),
            }
        }

    def resize_and_pad(
        self, image: torch.Tensor, target_width: int, target_height: int, padding_color: str, interpolation: str
    ) -> tuple[torch.Tensor]:
        factor = min(target_width / image.shape[2], target_height / image.shape[1])
        width, height = max(1, int(image.shape[2] * factor)), max(1, int(image.shape[1] * factor))
        resized = resize_images(image, width, height, interpolation)
        return (pad_centred(resized, target_width, target_height, 1.0 if padding_color == "white" else 0.0),)


class GetImageSize:
    """Width, height and number of pictures."""

    CATEGORY, FUNCTION = "image", "get_size"
    RETURN_TYPES, RETURN_NAMES = ("INT", "INT", "INT"), ("width", "height", "batch_size")
    DESCRIPTION = "Gives the width and height of a picture and passes on how many there are."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",)}, "hidden": {"unique_id": "UNIQUE_ID"}}

    def get_size(self, image: torch.Tensor, unique_id: str | None = None) -> tuple[int, int, int]:
        batch, height, width = image.shape[:3]
        return width, height, batch


class ImageRotate:
    """Turn a picture clockwise."""

    CATEGORY, FUNCTION, RETURN_TYPES = "image/transform", "rotate", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",), "rotation": (ROTATIONS,)}}

    def rotate(self, image: torch.Tensor, rotation: str) -> tuple[torch.Tensor]:
        return (torch.rot90(image, k=quarters_of(rotation), dims=[2, 1]),)


class ImageFlip:
    """Mirror a picture."""

    CATEGORY, FUNCTION, RETURN_TYPES = "image/transform", "flip", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",), "flip_method": (FLIPS,)}}

    def flip(self, image: torch.Tensor, flip_method: str) -> tuple[torch.Tensor]:
        return (torch.flip(image, dims=[1 if flip_method.startswith("x") else 2]),)


class ImageScaleToMaxDimension:
    """Resize so that the longer side has a length, keeping the aspect."""

    CATEGORY, FUNCTION, RETURN_TYPES = "image/upscaling", "upscale", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        methods = ["area", "lanczos", "bilinear", "nearest-exact", "bilinear", "bicubic"]  # the contract's list has one twice
        return {"required": {"image": ("IMAGE",), "upscale_method": (methods,), "largest_size": _int(512, 0)}}

    def upscale(self, image: torch.Tensor, upscale_method: str, largest_size: int) -> tuple[torch.Tensor]:
        if largest_size < 1:
            raise InputUnusable("The longer side must be at least 1 pixel.", largest_size=largest_size)
        height, width = image.shape[1:3]
        if height > width:
            width, height = max(1, round((width / height) * largest_size)), largest_size
        elif width > height:
            width, height = largest_size, max(1, round((height / width) * largest_size))
        else:
            width = height = largest_size
        return (resize_images(image, width, height, upscale_method),)


NODE_CLASS_MAPPINGS = {
    "ImageCrop": ImageCrop,
    "RepeatImageBatch": RepeatImageBatch,
    "ImageFromBatch": ImageFromBatch,
    "ImageAddNoise": ImageAddNoise,
    "SaveAnimatedWEBP": SaveAnimatedWEBP,
    "SaveAnimatedPNG": SaveAnimatedPNG,
    "SaveSVGNode": SaveSVGNode,
    "ImageStitch": ImageStitch,
    "ResizeAndPadImage": ResizeAndPadImage,
    "GetImageSize": GetImageSize,
    "ImageRotate": ImageRotate,
    "ImageFlip": ImageFlip,
    "ImageScaleToMaxDimension": ImageScaleToMaxDimension,
}
NODE_DISPLAY_NAME_MAPPINGS = {"ImageCrop": "Image Crop", "ImageStitch": "Image Stitch", "GetImageSize": "Get Image Size"}
