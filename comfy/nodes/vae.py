"""Nodes between pictures and latents. The VAE is a handle: encode (b, h, w, c) -> latent, decode latent -> (b, h, w, c)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from comfy.errors import InputUnusable
from comfy.nodes.conventions import Conditioning, Latent, conditioning_set_values, with_samples
from comfy.pixels import masks


def present(vae: Any) -> Any:
    """The VAE itself. Raises InputUnusable for what a checkpoint without one gives."""
    if vae is None:
        raise InputUnusable("There is no VAE: the checkpoint holds none. Load one from a file of its own.", field="vae")
    return vae


def as_pictures(frames: torch.Tensor) -> torch.Tensor:
    """A decoded batch of videos (b, t, h, w, c) as one batch of pictures (b t, h, w, c); pictures as they are."""
    return frames.reshape((-1, *frames.shape[-3:])) if frames.ndim == 5 else frames


def inpaint_crop(pixels: torch.Tensor, mask: torch.Tensor, multiple: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Both cut centrally to whole latent pixels, the mask first resized (bilinear) to the picture.

    pixels (b, h, w, 3), mask (..., h', w') -> (b, H, W, 3) and (b', 1, H, W); goldens README, D.3
    """
    height, width = pixels.shape[1:3]
    mask = F.interpolate(mask.reshape((-1, 1, *mask.shape[-2:])), size=(height, width), mode="bilinear")
    rows, columns = height // multiple * multiple, width // multiple * multiple
    top, left = (height % multiple) // 2, (width % multiple) // 2
    return pixels[:, top : top + rows, left : left + columns], mask[:, :, top : top + rows, left : left + columns]


def greyed(pixels: torch.Tensor, mask_b1hw: torch.Tensor) -> torch.Tensor:
    """The picture with 0.5 where the rounded mask is 1: (p - 0.5)(1 - round(m)) + 0.5, the first three channels."""
    keep = (1.0 - mask_b1hw.round()).squeeze(1).unsqueeze(-1)
    return (pixels[..., :3] - 0.5) * keep + 0.5


class VAEDecode:
    """Latents to pictures."""

    CATEGORY, FUNCTION, RETURN_TYPES = "latent", "decode", ("IMAGE",)
    OUTPUT_TOOLTIPS = ("The decoded pictures.",)
    DESCRIPTION = "Turns latents back into pictures."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "samples": ("LATENT", {"tooltip": "Latents to decode."}),
                "vae": ("VAE", {"tooltip": "The VAE of the model that made them."}),
            }
        }

    def decode(self, vae: Any, samples: Latent) -> tuple[torch.Tensor]:
        return (as_pictures(present(vae).decode(samples["samples"])),)


class VAEDecodeTiled:
    """Latents to pictures, tile by tile: less memory for large ones."""

    CATEGORY, FUNCTION, RETURN_TYPES = "_for_testing", "decode", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"samples": ("LATENT",), "vae": ("VAE",), **_tile_inputs(tile_step=32)}}

    def decode(
        self, vae: Any, samples: Latent, tile_size: int, overlap: int = 64, temporal_size: int = 64, temporal_overlap: int = 8
    ) -> tuple[torch.Tensor]:
        ratio = present(vae).spacial_compression_decode()
        overlap = _bounded(overlap, tile_size)
        frames = _frames(vae, temporal_size, temporal_overlap)
        side = tile_size // ratio
        return (as_pictures(vae.decode_tiled(samples["samples"], tile_x=side, tile_y=side, overlap=overlap // ratio, **frames)),)


class VAEEncode:
    """Pictures to latents."""

    CATEGORY, FUNCTION, RETURN_TYPES = "latent", "encode", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"pixels": ("IMAGE",), "vae": ("VAE",)}}

    def encode(self, vae: Any, pixels: torch.Tensor) -> tuple[Latent]:
        return ({"samples": present(vae).encode(pixels[..., :3])},)

    @staticmethod
    def vae_encode_crop_pixels(pixels: torch.Tensor) -> torch.Tensor:
        """The centre of (b, h, w, c) whose sides are multiples of 8."""
        height, width = pixels.shape[1:3]
        top, left = (height % 8) // 2, (width % 8) // 2
        return pixels[:, top : top + height // 8 * 8, left : left + width // 8 * 8]


class VAEEncodeTiled:
    """Pictures to latents, tile by tile."""

    CATEGORY, FUNCTION, RETURN_TYPES = "_for_testing", "encode", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"pixels": ("IMAGE",), "vae": ("VAE",), **_tile_inputs(tile_step=64)}}

    def encode(
        self, vae: Any, pixels: torch.Tensor, tile_size: int, overlap: int, temporal_size: int = 64, temporal_overlap: int = 8
    ) -> tuple[Latent]:
        overlap = overlap if overlap < tile_size // 2 else tile_size // 4  # one of the three tilings has half the side
        samples = present(vae).encode_tiled(
            pixels[..., :3], tile_x=tile_size, tile_y=tile_size, overlap=overlap, tile_t=temporal_size, overlap_t=temporal_overlap
        )
        return ({"samples": samples},)


def _tile_inputs(tile_step: int) -> dict[str, Any]:
    return {
        "tile_size": ("INT", {"default": 512, "min": 64, "max": 4096, "step": tile_step}),
        "overlap": ("INT", {"default": 64, "min": 0, "max": 4096, "step": 32}),
        "temporal_size": ("INT", {"default": 64, "min": 8, "max": 4096, "step": 4, "tooltip": "Video VAEs only: frames at once."}),
        "temporal_overlap": ("INT", {"default": 8, "min": 4, "max": 4096, "step": 4, "tooltip": "Video VAEs only: frames shared."}),
    }


def _bounded(overlap: int, tile: int) -> int:
    """Tiles must move on: an overlap over a quarter of the tile is cut to it."""
    return tile // 4 if tile < overlap * 4 else overlap


def _frames(vae: Any, size: int, overlap: int) -> dict[str, int | None]:
    """A video VAE's tile along time, in latent frames; None for picture VAEs."""
    ratio = vae.temporal_compression_decode()
    if ratio is None:
        return {"tile_t": None, "overlap_t": None}
    overlap = size // 2 if size < overlap * 2 else overlap
    tile = max(2, size // ratio)
    return {"tile_t": tile, "overlap_t": max(1, min(tile // 2, overlap // ratio))}


class VAEEncodeForInpaint:
    """Pictures to latents with the marked place greyed out, and its mask grown."""

    CATEGORY, FUNCTION, RETURN_TYPES = "latent/inpaint", "encode", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "pixels": ("IMAGE",),
                "vae": ("VAE",),
                "mask": ("MASK",),
                "grow_mask_by": ("INT", {"default": 6, "min": 0, "max": 64, "step": 1}),
            }
        }

    def encode(self, vae: Any, pixels: torch.Tensor, mask: torch.Tensor, grow_mask_by: int = 6) -> tuple[Latent]:
        pixels, mask = inpaint_crop(pixels, mask, present(vae).spacial_compression_encode())
        noise_mask = masks.inpaint_mask(mask, pixels.shape[1], pixels.shape[2], grow_mask_by)
        return ({"samples": vae.encode(greyed(pixels, mask)), "noise_mask": noise_mask},)


class InpaintModelConditioning:
    """What an inpainting model needs: the greyed picture's latent and the mask beside the noise."""

    CATEGORY, FUNCTION = "conditioning/inpaint", "encode"
    RETURN_TYPES = ("CONDITIONING", "CONDITIONING", "LATENT")
    RETURN_NAMES = ("positive", "negative", "latent")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        tooltip = "Keep the unmarked part: let the sampler change only what the mask marks."
        return {
            "required": {
                "positive": ("CONDITIONING",),
                "negative": ("CONDITIONING",),
                "vae": ("VAE",),
                "pixels": ("IMAGE",),
                "mask": ("MASK",),
                "noise_mask": ("BOOLEAN", {"default": True, "tooltip": tooltip}),
            }
        }

    def encode(
        self, positive: Conditioning, negative: Conditioning, pixels: torch.Tensor, vae: Any, mask: torch.Tensor, noise_mask: bool = True
    ) -> tuple[Conditioning, Conditioning, Latent]:
        pixels, mask = inpaint_crop(pixels, mask, 8)
        values = {"concat_latent_image": present(vae).encode(greyed(pixels, mask)), "concat_mask": mask}
        latent = with_samples({}, vae.encode(pixels[..., :3]))
        if noise_mask:
            latent["noise_mask"] = mask
        return conditioning_set_values(positive, values), conditioning_set_values(negative, values), latent


NODE_CLASS_MAPPINGS = {
    "VAEDecode": VAEDecode,
    "VAEDecodeTiled": VAEDecodeTiled,
    "VAEEncode": VAEEncode,
    "VAEEncodeTiled": VAEEncodeTiled,
    "VAEEncodeForInpaint": VAEEncodeForInpaint,
    "InpaintModelConditioning": InpaintModelConditioning,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "VAEDecode": "VAE Decode",
    "VAEDecodeTiled": "VAE Decode (Tiled)",
    "VAEEncode": "VAE Encode",
    "VAEEncodeTiled": "VAE Encode (Tiled)",
    "VAEEncodeForInpaint": "VAE Encode (for Inpainting)",
}
