"""Blend, blur, sharpen, add noise: (b, h, w, c) pictures in 0..1. Source: goldens README, section G."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from comfy.errors import InputUnusable
from comfy.pixels.resize import resize_images


def _overlay(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.where(a <= 0.5, 2 * a * b, 1 - 2 * (1 - a) * (1 - b))


def _soft_light(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """W3C Compositing and Blending, 10.1.11."""
    lifted = torch.where(a <= 0.25, ((16 * a - 12) * a + 4) * a, a.clamp(min=0.0).sqrt())
    return torch.where(b <= 0.5, a - (1 - 2 * b) * a * (1 - a), a + (2 * b - 1) * (lifted - a))


BLEND_MODES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "normal": lambda a, b: b,
    "multiply": lambda a, b: a * b,
    "screen": lambda a, b: 1 - (1 - a) * (1 - b),
    "overlay": _overlay,
    "soft_light": _soft_light,
    "difference": lambda a, b: a - b,
}


def blend(image1: torch.Tensor, image2: torch.Tensor, factor: float, mode: str) -> torch.Tensor:
    """a (1 - f) + blend(a, b) f, clamped; the second picture is resized (bicubic, centre crop) to the first.

    Channels that only one picture has: the second's are cut, an opaque alpha stands in for missing ones.
    """
    if mode not in BLEND_MODES:
        raise InputUnusable("The blend mode is not known.", blend_mode=mode)
    image2 = image2.to(image1.device)[..., : image1.shape[-1]]
    if image2.shape[-1] < image1.shape[-1]:
        image2 = F.pad(image2, (0, image1.shape[-1] - image2.shape[-1]), value=1.0)
    if image1.shape[1:] != image2.shape[1:]:
        image2 = resize_images(image2, image1.shape[2], image1.shape[1], "bicubic", "center")
    mixed = image1 * (1 - factor) + BLEND_MODES[mode](image1, image2) * factor
    return mixed.clamp(0.0, 1.0)


def gaussian_kernel(size: int, sigma: float, device: torch.device | None = None) -> torch.Tensor:
    """(size, size): exp(-(u^2 + v^2) / 2 sigma^2) on linspace(-1, 1), normalised; sigma in units of the half kernel."""
    ramp = torch.linspace(-1, 1, size, device=device)
    distance = ramp[:, None] ** 2 + ramp[None, :] ** 2
    kernel = torch.exp(-distance / (2 * sigma * sigma))
    return kernel / kernel.sum()


def convolve(x_bchw: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Each channel with one odd (k, k) kernel, borders reflected. Raises InputUnusable when the picture is too small."""
    channels, radius = x_bchw.shape[1], kernel.shape[0] // 2
    if min(x_bchw.shape[-2:]) <= radius:
        raise InputUnusable("The picture is smaller than the radius.", radius=radius, height=x_bchw.shape[-2], width=x_bchw.shape[-1])
    padded = F.pad(x_bchw, (radius, radius, radius, radius), "reflect")
    return F.conv2d(padded, kernel.to(x_bchw).expand(channels, 1, -1, -1), groups=channels)


def blur(image: torch.Tensor, radius: int, sigma: float) -> torch.Tensor:
    """Gaussian blur with a (2 r + 1)^2 kernel; radius 0 gives the picture itself."""
    if radius == 0:
        return image
    return convolve(image.movedim(-1, 1), gaussian_kernel(2 * radius + 1, sigma, image.device)).movedim(1, -1)


def sharpen_kernel(radius: int, sigma: float, alpha: float, device: torch.device | None = None) -> torch.Tensor:
    """Unsharp mask: -10 alpha times the Gaussian, its centre raised so that the sum is 1."""
    size = 2 * radius + 1
    kernel = gaussian_kernel(size, sigma, device) * -(alpha * 10)
    kernel[radius, radius] = kernel[radius, radius] - kernel.sum() + 1.0
    return kernel


def sharpen(image: torch.Tensor, radius: int, sigma: float, alpha: float) -> torch.Tensor:
    """Unsharp masking, clamped; radius 0 gives the picture itself."""
    if radius == 0:
        return image
    kernel = sharpen_kernel(radius, sigma, alpha, image.device)
    return convolve(image.movedim(-1, 1), kernel).movedim(1, -1).clamp(0.0, 1.0)


def add_noise(image: torch.Tensor, seed: int, strength: float) -> torch.Tensor:
    """clamp(image + strength N): N from a private CPU generator, the numbers that seeding torch's global one gives."""
    generator = torch.Generator("cpu").manual_seed(seed)
    noise = torch.randn(image.shape, generator=generator, device="cpu").to(image)
    return (image + strength * noise).clamp(0.0, 1.0)
