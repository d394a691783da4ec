"""All pure functions on pictures, masks and latents by name; what each does is told where it is defined, in comfy/pixels."""

from __future__ import annotations

from comfy.pixels import blend as blending
from comfy.pixels import compositing, latents, masks, morphology
from comfy.pixels.batch import batch_images, latent_like, matched_channels, rebatch_images, repeat_to_batch_size, resize_to_batch_size
from comfy.pixels.compositing import join_alpha, outpaint, pad_centred, porter_duff, split_alpha
from comfy.pixels.morphology import luma
from comfy.pixels.quantize import quantize
from comfy.pixels.resize import bislerp, common_upscale, crop_to_aspect, keep_aspect, lanczos, resize_images, total_pixels
from comfy.pixels.stitch import stitch
from comfy.pixels.tiling import get_tiled_scale_steps, tiled_scale, tiled_scale_multidim

__all__ = [
    "batch_images",
    "bislerp",
    "blending",
    "common_upscale",
    "compositing",
    "crop_to_aspect",
    "get_tiled_scale_steps",
    "join_alpha",
    "keep_aspect",
    "lanczos",
    "latent_like",
    "latents",
    "luma",
    "masks",
    "matched_channels",
    "morphology",
    "outpaint",
    "pad_centred",
    "porter_duff",
    "quantize",
    "rebatch_images",
    "repeat_to_batch_size",
    "resize_images",
    "resize_to_batch_size",
    "split_alpha",
    "stitch",
    "tiled_scale",
    "tiled_scale_multidim",
    "total_pixels",
]
