"""Low-rank changes of a weight: δ = (alpha/rank)·up·down. Hu et al. 2021, arXiv:2106.09685; with a core for convolutions
(LoCon): Yeh et al. 2023, arXiv:2309.14859. Maths: goldens README, section H.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from comfy.errors import InputUnusable


@dataclass(frozen=True)
class LoraAdapter:
    """The value of a weight patch.

    up     (out, rank, …)
    down   (rank, in, …)
    alpha  scale times rank; None: scale 1
    mid    (rank, rank, height, width) between the two, for convolutions
    """

    up: Tensor
    down: Tensor
    alpha: float | None = None
    mid: Tensor | None = None

    def calculate_weight(
        self,
        weight: Tensor,
        key: str,
        strength: float,
        strength_model: float,
        offset: Any,
        function: Callable[[Tensor], Tensor],
        intermediate_dtype: torch.dtype = torch.float32,
        original_weights: Any = None,
    ) -> Tensor:
        """`weight` with strength·function(δ) added in place. Raises InputUnusable when the shapes do not fit."""
        place: dict[str, Any] = {"device": weight.device, "dtype": intermediate_dtype}
        delta = self._delta(self.up.to(**place), self.down.to(**place), None if self.mid is None else self.mid.to(**place))
        if delta.numel() != weight.numel():
            raise InputUnusable("A LoRA does not fit the weight.", key=key, shape=list(delta.shape), expected_shape=list(weight.shape))
        scale = 1.0 if self.alpha is None else self.alpha / self.down.shape[0]
        return weight.add_(function((strength * scale) * delta.reshape(weight.shape)).to(weight.dtype))

    @staticmethod
    def _delta(up: Tensor, down: Tensor, mid: Tensor | None) -> Tensor:
        if mid is not None:
            return torch.einsum("or,rshw,si->oihw", up.flatten(1), mid, down.flatten(1))
        return up.flatten(1) @ down.flatten(1)
