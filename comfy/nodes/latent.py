"""Nodes on latents. Maths: comfy/pixels/latents.py; rules: goldens README, sections C and G."""

from __future__ import annotations

from typing import Any

import torch

from comfy.nodes.conventions import (
    CROP_METHODS,
    FLIPS,
    LATENT_UPSCALE_METHODS,
    MAX_RESOLUTION,
    ROTATIONS,
    Latent,
    quarters_of,
    with_samples,
)
from comfy.pixels import latents
from comfy.pixels.batch import repeat_to_batch_size


def _side(default: int = 512, least: int = 0) -> tuple[str, dict[str, int]]:
    return ("INT", {"default": default, "min": least, "max": MAX_RESOLUTION, "step": 8})


class EmptyLatentImage:
    """Zeros for a text-to-image run: batch x 4 channels x height/8 x width/8."""

    CATEGORY, FUNCTION, RETURN_TYPES = "latent", "generate", ("LATENT",)
    OUTPUT_TOOLTIPS = ("The empty latents.",)
    DESCRIPTION = "A batch of empty latents for the sampler to fill."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        size = {"default": 512, "min": 16, "max": MAX_RESOLUTION, "step": 8}
        return {
            "required": {
                "width": ("INT", {**size, "tooltip": "Width of the pictures, in pixels."}),
                "height": ("INT", {**size, "tooltip": "Height of the pictures, in pixels."}),
                "batch_size": ("INT", {"default": 1, "min": 1, "max": 4096, "tooltip": "How many pictures."}),
            }
        }

    def generate(self, width: int, height: int, batch_size: int = 1) -> tuple[Latent]:
        return ({"samples": latents.empty(width, height, batch_size)},)


class LatentUpscale:
    """Resize a latent to a size in picture pixels."""

    CATEGORY, FUNCTION, RETURN_TYPES = "latent", "upscale", ("LATENT",)
    upscale_methods = LATENT_UPSCALE_METHODS
    crop_methods = CROP_METHODS

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "samples": ("LATENT",),
                "upscale_method": (cls.upscale_methods,),
                "width": _side(),
                "height": _side(),
                "crop": (cls.crop_methods,),
            }
        }

    def upscale(self, samples: Latent, upscale_method: str, width: int, height: int, crop: str) -> tuple[Latent]:
        if width == 0 and height == 0:
            return (samples,)
        return (with_samples(samples, latents.upscale(samples["samples"], upscale_method, width, height, crop)),)


class LatentUpscaleBy:
    """Resize a latent by a factor."""

    CATEGORY, FUNCTION, RETURN_TYPES = "latent", "upscale", ("LATENT",)
    upscale_methods = LATENT_UPSCALE_METHODS

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "samples": ("LATENT",),
                "upscale_method": (cls.upscale_methods,),
                "scale_by": ("FLOAT", {"default": 1.5, "min": 0.01, "max": 8.0, "step": 0.01}),
            }
        }

    def upscale(self, samples: Latent, upscale_method: str, scale_by: float) -> tuple[Latent]:
        return (with_samples(samples, latents.upscale_by(samples["samples"], upscale_method, scale_by)),)


class LatentFromBatch:
    """Some items of a batch, which keep their noise."""

    CATEGORY, FUNCTION, RETURN_TYPES = "latent/batch", "frombatch", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "samples": ("LATENT",),
                "batch_index": ("INT", {"default": 0, "min": 0, "max": 63}),
                "length": ("INT", {"default": 1, "min": 1, "max": 64}),
            }
        }

    def frombatch(self, samples: Latent, batch_index: int, length: int) -> tuple[Latent]:
        batch = samples["samples"].shape[0]
        start, length = latents.from_batch_indices(batch, batch_index, length)
        picked = with_samples(samples, samples["samples"][start : start + length].clone())
        mask = samples.get("noise_mask")
        if mask is not None:
            picked["noise_mask"] = mask.clone() if mask.shape[0] == 1 else repeat_to_batch_size(mask, batch)[start : start + length].clone()
        numbers = samples.get("batch_index") or range(batch)
        picked["batch_index"] = list(numbers[start : start + length])
        return (picked,)


class RepeatLatentBatch:
    """A batch several times over; copies get noise of their own."""

    CATEGORY, FUNCTION, RETURN_TYPES = "latent/batch", "repeat", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"samples": ("LATENT",), "amount": ("INT", {"default": 1, "min": 1, "max": 64})}}

    def repeat(self, samples: Latent, amount: int) -> tuple[Latent]:
        x = samples["samples"]
        repeated = with_samples(samples, repeat_to_batch_size(x, x.shape[0] * amount))
        mask = samples.get("noise_mask")
        if mask is not None and mask.shape[0] > 1:
            whole = repeat_to_batch_size(mask, max(mask.shape[0], x.shape[0]))
            repeated["noise_mask"] = repeat_to_batch_size(whole, whole.shape[0] * amount)
        if samples.get("batch_index"):
            repeated["batch_index"] = latents.repeated_batch_index(samples["batch_index"], amount)
        return (repeated,)


class LatentRotate:
    """Turn a latent clockwise."""

    CATEGORY, FUNCTION, RETURN_TYPES = "latent/transform", "rotate", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"samples": ("LATENT",), "rotation": (ROTATIONS,)}}

    def rotate(self, samples: Latent, rotation: str) -> tuple[Latent]:
        return (with_samples(samples, latents.rotate(samples["samples"], quarters_of(rotation))),)


class LatentFlip:
    """Mirror a latent."""

    CATEGORY, FUNCTION, RETURN_TYPES = "latent/transform", "flip", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"samples": ("LATENT",), "flip_method": (FLIPS,)}}

    def flip(self, samples: Latent, flip_method: str) -> tuple[Latent]:
        return (with_samples(samples, latents.flip(samples["samples"], vertically=flip_method.startswith("x"))),)


class LatentComposite:
    """Lay one latent over another, with soft edges."""

    CATEGORY, FUNCTION, RETURN_TYPES = "latent", "composite", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "samples_to": ("LATENT",),
                "samples_from": ("LATENT",),
                "x": _side(0),
                "y": _side(0),
                "feather": _side(0),
            }
        }

    def composite(
        self, samples_to: Latent, samples_from: Latent, x: int, y: int, composite_method: str = "normal", feather: int = 0
    ) -> tuple[Latent]:
        return (with_samples(samples_to, latents.composite(samples_to["samples"], samples_from["samples"], x, y, feather)),)


class LatentBlend:
    """Mix two latents; the factor is the first one's share."""

    CATEGORY, FUNCTION, RETURN_TYPES = "_for_testing", "blend", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "samples1": ("LATENT",),
                "samples2": ("LATENT",),
                "blend_factor": ("FLOAT", {"default": 0.5, "min": 0, "max": 1, "step": 0.01}),
            }
        }

    def blend(self, samples1: Latent, samples2: Latent, blend_factor: float, blend_mode: str = "normal") -> tuple[Latent]:
        return (with_samples(samples1, latents.blend(samples1["samples"], samples2["samples"], blend_factor)),)


class LatentCrop:
    """Cut a part out of a latent; sizes in picture pixels."""

    CATEGORY, FUNCTION, RETURN_TYPES = "latent/transform", "crop", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "samples": ("LATENT",),
                "width": _side(512, 64),
                "height": _side(512, 64),
                "x": _side(0),
                "y": _side(0),
            }
        }

    def crop(self, samples: Latent, width: int, height: int, x: int, y: int) -> tuple[Latent]:
        return (with_samples(samples, latents.crop(samples["samples"], x, y, width, height)),)


class SetLatentNoiseMask:
    """Let the sampler change only what the mask marks."""

    CATEGORY, FUNCTION, RETURN_TYPES = "latent/inpaint", "set_mask", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"samples": ("LATENT",), "mask": ("MASK",)}}

    def set_mask(self, samples: Latent, mask: torch.Tensor) -> tuple[Latent]:
        masked = dict(samples)
        masked["noise_mask"] = mask.reshape((-1, 1, *mask.shape[-2:]))
        return (masked,)


NODE_CLASS_MAPPINGS = {
    "EmptyLatentImage": EmptyLatentImage,
    "LatentUpscale": LatentUpscale,
    "LatentUpscaleBy": LatentUpscaleBy,
    "LatentFromBatch": LatentFromBatch,
    "RepeatLatentBatch": RepeatLatentBatch,
    "SetLatentNoiseMask": SetLatentNoiseMask,
    "LatentComposite": LatentComposite,
    "LatentBlend": LatentBlend,
    "LatentRotate": LatentRotate,
    "LatentFlip": LatentFlip,
    "LatentCrop": LatentCrop,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "EmptyLatentImage": "Empty Latent Image",
    "LatentUpscale": "Upscale Latent",
    "LatentUpscaleBy": "Upscale Latent By",
    "LatentFromBatch": "Latent From Batch",
    "RepeatLatentBatch": "Repeat Latent Batch",
    "SetLatentNoiseMask": "Set Latent Noise Mask",
    "LatentComposite": "Latent Composite",
    "LatentBlend": "Latent Blend",
    "LatentRotate": "Rotate Latent",
    "LatentFlip": "Flip Latent",
    "LatentCrop": "Crop Latent",
}
