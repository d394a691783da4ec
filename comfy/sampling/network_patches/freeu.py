"""FreeU: Si et al. 2023, arXiv:2309.11497: on the way up, amplify the backbone and damp the skips' low frequencies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class FreeU:
    """An output block patch.

    factors   width of a stage's backbone -> (b, s): factor of half its channels, factor of the skip's low frequencies
    adaptive  of the second version: b only where the backbone is strong (section 3.2, structure-related scaling)
    """

    factors: dict[int, tuple[float, float]]
    adaptive: bool

    def __call__(self, h: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """h, skip (b, c, height, width), before they are joined."""
        if h.shape[1] not in self.factors:
            return h, skip
        backbone, low = self.factors[h.shape[1]]
        half = h.shape[1] // 2
        factor: Tensor | float = backbone
        if self.adaptive:
            factor = (backbone - 1.0) * strength(h) + 1.0
        return torch.cat([h[:, :half] * factor, h[:, half:]], dim=1), damp_low(skip, low)


def strength(h: Tensor) -> Tensor:
    """(b, c, height, width) -> (b, 1, height, width): the mean over channels, stretched to 0..1 in each item."""
    mean = h.mean(dim=1, keepdim=True)
    low, high = mean.amin(dim=(2, 3), keepdim=True), mean.amax(dim=(2, 3), keepdim=True)
    return (mean - low) / (high - low).clamp(min=torch.finfo(h.dtype).tiny)


def damp_low(x: Tensor, factor: float, radius: int = 1) -> Tensor:
    """Scale the frequencies from -radius up to radius - 1 of each map by `factor`; in float32, which every FFT size takes."""
    spectrum = torch.fft.fftshift(torch.fft.fftn(x.float(), dim=(-2, -1)), dim=(-2, -1))
    row, column = x.shape[-2] // 2, x.shape[-1] // 2
    scale = torch.ones(x.shape[-2:], device=x.device)
    scale[max(row - radius, 0) : row + radius, max(column - radius, 0) : column + radius] = factor
    damped = torch.fft.ifftn(torch.fft.ifftshift(spectrum * scale, dim=(-2, -1)), dim=(-2, -1))
    return damped.real.to(x.dtype)
