"""Maths on latents: (b, c, h, w) or (b, c, t, h, w), one latent pixel is 8 picture pixels. Source: goldens README, G."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from comfy.errors import InputUnusable
from comfy.pixels.batch import latent_like, repeat_to_batch_size
from comfy.pixels.blend import convolve, sharpen_kernel
from comfy.pixels.resize import common_upscale

PIXELS_PER_LATENT = 8


def empty(width: int, height: int, batch_size: int, channels: int = 4, device: torch.device | str = "cpu") -> torch.Tensor:
    """Zeros (batch_size, channels, height // 8, width // 8), float32."""
    return torch.zeros((batch_size, channels, height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT), device=device)


def upscale(samples: torch.Tensor, method: str, width: int, height: int, crop: str) -> torch.Tensor:
    """Resize to a size in picture pixels, at least 64 each.

    A side of 0 follows the latent's aspect, computed from latent sides and the other side's pixels; both 0: unchanged.
    """
    if width == 0 and height == 0:
        return samples
    h, w = samples.shape[-2:]
    if width == 0:
        height = max(64, height)
        width = max(64, round(w * height / h))
    elif height == 0:
        width = max(64, width)
        height = max(64, round(h * width / w))
    else:
        width, height = max(64, width), max(64, height)
    return common_upscale(samples, width // PIXELS_PER_LATENT, height // PIXELS_PER_LATENT, method, crop)


def upscale_by(samples: torch.Tensor, method: str, factor: float) -> torch.Tensor:
    """Resize both sides by `factor`, rounded, at least 1."""
    height, width = (max(1, round(side * factor)) for side in samples.shape[-2:])
    return common_upscale(samples, width, height, method, "disabled")


def crop(samples: torch.Tensor, x: int, y: int, width: int, height: int) -> torch.Tensor:
    """The part at (x, y), sizes and places in picture pixels; moved so that at least 64 pixels stay inside."""
    least = 64 // PIXELS_PER_LATENT
    x = max(0, min(x // PIXELS_PER_LATENT, samples.shape[-1] - least))
    y = max(0, min(y // PIXELS_PER_LATENT, samples.shape[-2] - least))
    return samples[..., y : y + height // PIXELS_PER_LATENT, x : x + width // PIXELS_PER_LATENT]


def composite(destination: torch.Tensor, source: torch.Tensor, x: int, y: int, feather: int) -> torch.Tensor:
    """Lay `source` at (x, y), all three in picture pixels; sides inside the destination get ramps (t + 1)/feather."""
    x, y, feather = x // PIXELS_PER_LATENT, y // PIXELS_PER_LATENT, feather // PIXELS_PER_LATENT
    result = destination.clone()
    height, width = destination.shape[-2:]
    piece = source[..., : max(0, height - y), : max(0, width - x)].to(result)
    h, w = piece.shape[-2:]
    if h == 0 or w == 0:
        return result
    rows = _ramps(h, feather, start=y != 0, end=y + h < height).to(result)
    columns = _ramps(w, feather, start=x != 0, end=x + w < width).to(result)
    mask = rows[:, None] * columns
    area = result[..., y : y + h, x : x + w]
    result[..., y : y + h, x : x + w] = piece * mask + area * (1.0 - mask)
    return result


def _ramps(size: int, feather: int, start: bool, end: bool) -> torch.Tensor:
    ramp = torch.ones(size)
    for t in range(min(feather, size)):
        if start:
            ramp[t] *= (t + 1) / feather
        if end:
            ramp[size - 1 - t] *= (t + 1) / feather
    return ramp


def blend(samples1: torch.Tensor, samples2: torch.Tensor, factor: float) -> torch.Tensor:
    """f a + (1 - f) b; b resized (bicubic, centre crop) to a."""
    samples2 = samples2.to(samples1)
    if samples1.shape[-2:] != samples2.shape[-2:]:
        samples2 = common_upscale(samples2, samples1.shape[-1], samples1.shape[-2], "bicubic", "center")
    return samples1 * factor + samples2 * (1 - factor)


def interpolate(samples1: torch.Tensor, samples2: torch.Tensor, ratio: float) -> torch.Tensor:
    """Directions mixed and normalised again, norms mixed apart; the channel vector is the unit. `ratio` weighs the first."""
    samples2 = latent_like(samples1, samples2)
    norm1, norm2 = samples1.norm(dim=1, keepdim=True), samples2.norm(dim=1, keepdim=True)
    mixed = (samples1 / norm1).nan_to_num() * ratio + (samples2 / norm2).nan_to_num() * (1.0 - ratio)
    direction = (mixed / mixed.norm(dim=1, keepdim=True)).nan_to_num()
    return direction * (norm1 * ratio + norm2 * (1.0 - ratio))


#: axis of a direction's name
AXES = {"x": -1, "y": -2, "t": -3}


def axis_of(samples: torch.Tensor, dim: str) -> int:
    """-1, -2 or -3 for x, y, t, with or without a minus; InputUnusable for t of a latent without frames."""
    axis = AXES.get(dim.lstrip("-"))
    if axis is None or samples.ndim + axis < 2:
        raise InputUnusable("The latent has no such axis.", dim=dim, axes=samples.ndim)
    return axis


def concat(samples1: torch.Tensor, samples2: torch.Tensor, dim: str) -> torch.Tensor:
    """Side by side along x, y or t; a minus puts the second first. The second's batch is repeated to the first's."""
    samples2 = repeat_to_batch_size(samples2, samples1.shape[0])
    pair = (samples2, samples1) if dim.startswith("-") else (samples1, samples2)
    axis = axis_of(samples1, dim)
    try:
        return torch.cat(pair, dim=axis)
    except RuntimeError as error:
        raise InputUnusable("The latents' other sides differ.", first=list(samples1.shape), second=list(samples2.shape)) from error


def cut(samples: torch.Tensor, dim: str, index: int, amount: int) -> torch.Tensor:
    """`amount` places of an axis from `index`; a negative index counts from the end; clamped to what is there."""
    axis = axis_of(samples, dim)
    size = samples.shape[axis]
    if index >= 0:
        start = min(index, size - 1)
    else:
        start = size + max(index, -size)
    return samples.narrow(axis, start, min(amount, size - start))


def rotate(samples: torch.Tensor, quarters: int) -> torch.Tensor:
    """Clockwise by quarters of a turn."""
    return torch.rot90(samples, k=quarters, dims=[-1, -2])


def flip(samples: torch.Tensor, vertically: bool) -> torch.Tensor:
    """Upside down, or left to right."""
    return torch.flip(samples, dims=[-2 if vertically else -1])


def tonemap_reinhard(latent: torch.Tensor, multiplier: float) -> torch.Tensor:
    """Compress large channel vectors: m' = top (m/top)/(m/top + 1), top = (5 std + mean) k of the sample's norms."""
    magnitude = latent.norm(dim=1, keepdim=True) + 1e-10
    axes = list(range(1, magnitude.ndim))
    top = (magnitude.std(dim=axes, keepdim=True) * 5 + magnitude.mean(dim=axes, keepdim=True)) * multiplier
    scaled = magnitude / top
    return latent / magnitude * (scaled / (scaled + 1.0) * top)


def sharpen(latent: torch.Tensor, radius: int, sigma: float, alpha: float) -> torch.Tensor:
    """Unsharp masking of the channel vectors' directions, at their old lengths; frames one by one."""
    magnitude = latent.norm(dim=1, keepdim=True) + 1e-6
    kernel = sharpen_kernel(radius, sigma, alpha, latent.device)
    direction = latent / magnitude
    if direction.ndim == 5:
        b, c, t, h, w = direction.shape
        flat = convolve(direction.movedim(2, 1).reshape(b * t, c, h, w), kernel)
        return flat.reshape(b, t, c, h, w).movedim(1, 2) * magnitude
    return convolve(direction, kernel) * magnitude


def from_batch_indices(batch: int, start: int, length: int) -> tuple[int, int]:
    """(start, length) clamped to a batch."""
    start = min(batch - 1, start)
    return start, min(batch - start, length)


def repeated_batch_index(batch_index: Sequence[int], amount: int) -> list[int]:
    """The noise numbers of a batch repeated `amount` times: each copy is moved by the span of the first."""
    span = max(batch_index) - min(batch_index) + 1
    return [index + copy * span for copy in range(amount) for index in batch_index]


def empty_video(
    width: int, height: int, length: int, batch_size: int, channels: int, ratio: tuple[int, int, int], device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Zeros (batch_size, channels, frames, height / ratio, width / ratio) for a video of `length` frames.

    ratio  pixels per latent cell along time, height and width; time gives floor((length + r - 1) / r) latent frames
    (goldens README, section F)
    """
    frames = (length + ratio[0] - 1) // ratio[0]
    return torch.zeros((batch_size, channels, frames, height // ratio[1], width // ratio[2]), device=device)
