"""The vector conditioning of SDXL and its refiner. Podell et al. 2023, arXiv:2307.01952, section 2.2; goldens README, section E.3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from comfy.ldm.modules.diffusionmodules.util import timestep_embedding

WIDTH = 256
DEFAULT_SIZE = 768
SCORE, NEGATIVE_SCORE = 6.0, 2.5


def _joined(pooled: Tensor, values: Sequence[float]) -> Tensor:
    """pooled (b, p) and a sinusoid of each value: (b, p + 256·values)"""
    sinusoids = timestep_embedding(torch.tensor([float(value) for value in values], device=pooled.device), WIDTH).flatten()
    return torch.cat([pooled, sinusoids.to(pooled).expand(pooled.shape[0], -1)], dim=1)


def sdxl_vector(
    pooled: Tensor,
    *,
    width: float = DEFAULT_SIZE,
    height: float = DEFAULT_SIZE,
    crop_w: float = 0,
    crop_h: float = 0,
    target_width: float | None = None,
    target_height: float | None = None,
    **ignored: Any,
) -> Tensor:
    """pooled CLIP-G (b, 1280) and sizes in pixels -> (b, 2816). Absent targets are the sizes."""
    target_width = width if target_width is None else target_width
    target_height = height if target_height is None else target_height
    return _joined(pooled, (height, width, crop_h, crop_w, target_height, target_width))


def refiner_vector(
    pooled: Tensor,
    *,
    width: float = DEFAULT_SIZE,
    height: float = DEFAULT_SIZE,
    crop_w: float = 0,
    crop_h: float = 0,
    aesthetic_score: float | None = None,
    prompt_type: str = "positive",
    **ignored: Any,
) -> Tensor:
    """pooled CLIP-G (b, 1280), sizes in pixels and a score -> (b, 2560). The score is 6, or 2.5 for a negative prompt."""
    if aesthetic_score is None:
        aesthetic_score = NEGATIVE_SCORE if prompt_type == "negative" else SCORE
    return _joined(pooled, (height, width, crop_h, crop_w, aesthetic_score))
