"""Reduce a picture to few colours. Source: goldens README, section G; Bayer 1973 for the ordered dither."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from comfy.errors import InputUnusable


def bayer_matrix(order: int) -> np.ndarray:
    """(order, order) thresholds around 0 for an order that is a power of two.

    M_0 = 0; M_n = (M - 1.5/4^n, M + 0.5/4^n; M + 1.5/4^n, M - 0.5/4^n), each M the whole matrix of the level before.
    """
    matrix = np.zeros((1, 1), dtype=np.float64)
    for level in range(1, order.bit_length()):
        step = 4.0**-level
        matrix = np.block([[matrix - 1.5 * step, matrix + 0.5 * step], [matrix + 1.5 * step, matrix - 0.5 * step]])
    return matrix


def quantize(image: torch.Tensor, colors: int, dither: str) -> torch.Tensor:
    """Each picture of (b, h, w, 3) mapped to its own median-cut palette of `colors`; 8-bit, truncated.

    dither  none, floyd-steinberg or bayer-<power of two>
    """
    if image.shape[-1] != 3:
        raise InputUnusable("Only pictures with three channels can be quantized.", channels=image.shape[-1])
    pixels = image.detach().clamp(0.0, 1.0).mul(255.0).to("cpu", torch.uint8).numpy()
    mapped = np.stack([_quantize_bytes(picture, colors, dither) for picture in pixels])
    return torch.from_numpy(mapped).to(image.device, image.dtype) / 255.0


def _quantize_bytes(pixels: np.ndarray, colors: int, dither: str) -> np.ndarray:
    picture = Image.fromarray(pixels, mode=None)
    palette = picture.quantize(colors=colors)
    if dither.startswith("bayer-"):
        mapped = _ordered(pixels, palette, colors, int(dither[len("bayer-") :]))
    elif dither == "floyd-steinberg":
        mapped = picture.quantize(colors=colors, palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    elif dither == "none":
        mapped = picture.quantize(colors=colors, palette=palette, dither=Image.Dither.NONE)
    else:
        raise InputUnusable("The dither is not known.", dither=dither)
    return np.asarray(mapped.convert("RGB"))


def _ordered(pixels: np.ndarray, palette: Image.Image, colors: int, order: int) -> Image.Image:
    if order < 2 or order & (order - 1):
        raise InputUnusable("The order of a Bayer matrix is a power of two.", order=order)
    height, width = pixels.shape[:2]
    thresholds = (2 * 256 / colors) * bayer_matrix(order) + 0.5
    tiled = np.tile(thresholds, (height // order + 1, width // order + 1))[:height, :width, None]
    moved = np.clip(pixels + tiled, 0, 255).astype(np.uint8)
    return Image.fromarray(moved).quantize(colors=colors, palette=palette, dither=Image.Dither.NONE)
