"""Helpers of the diffusion networks."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def timestep_embedding(timesteps: Tensor, dim: int, max_period: float = 10000, repeat_only: bool = False) -> Tensor:
    """Sinusoids of `timesteps`: cosines first, then sines, then a 0 when `dim` is odd. arXiv:1706.03762, section 3.5.

    timesteps  (b,), whole or fractional
    Returns (b, dim) float32; with `repeat_only` the timestep itself, dim times.
    """
    if repeat_only:
        return timesteps.float()[:, None].repeat(1, dim)
    half = dim // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps.float()[:, None] * torch.exp(-math.log(max_period) * exponents)[None]
    embedding = torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)
    return torch.nn.functional.pad(embedding, (0, dim % 2))
