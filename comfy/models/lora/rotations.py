"""Orthogonal fine-tuning: a weight's rows are turned. Qiu et al. 2023, arXiv:2306.07280 (blocks); Liu et al. 2023, arXiv:2311.06243
(butterflies of blocks). Where strength enters: goldens README, section H.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from comfy.models.lora.adapters import WeightAdapter, decomposed, log
from comfy.models.lora.tensors import plain


def cayley(blocks: Tensor, limit: float) -> Tensor:
    """(…, b, b) any matrices -> rotations (I + Q)(I - Q)⁻¹ with Q = B - Bᵀ, the norm of all Q together at most `limit` if that is > 0."""
    q = blocks - blocks.transpose(-1, -2)
    if limit > 0:
        norm = q.norm() + 1e-8
        q = q * (norm.clamp(max=limit) / norm)
    one = torch.eye(q.shape[-1], dtype=q.dtype, device=q.device)
    return (one + q) @ torch.linalg.inv(one - q)


@dataclass(frozen=True)
class OftAdapter(WeightAdapter):
    """blocks (n, b, b), each turning b rows; or (m, n, b, b), m such layers with the rows shuffled in between.

    alpha    bound of the rotations' generator
    rescale  (o, 1, …) factor of each row after turning
    """

    blocks: Any
    alpha: Any = None
    rescale: Any = None
    dora_scale: Any = None

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
        """`weight` turned, in place. One whose rows the blocks do not cover stays as it is, with a warning."""
        whole = weight.to(intermediate_dtype)
        blocks = plain(self.blocks, weight, intermediate_dtype)
        if blocks.ndim not in (3, 4) or blocks.shape[-3] * blocks.shape[-1] != weight.shape[0]:
            log.warning("rotations %s do not fit %s, which is %s: left out", list(blocks.shape), key, list(weight.shape))
            return weight
        turns = cayley(blocks, 0.0 if self.alpha is None else float(plain(self.alpha)))
        turned = self._blockwise(turns, whole, strength) if blocks.ndim == 3 else self._butterfly(turns, whole, strength)
        if self.dora_scale is not None:
            turned = decomposed(whole, turned - whole, plain(self.dora_scale, weight, intermediate_dtype))
        return weight.add_(function(strength * (turned - whole)).to(weight.dtype))

    def _blockwise(self, turns: Tensor, weight: Tensor, strength: float) -> Tensor:
        """weight + strength·(Rᵀ - I) weight, block by block: this form's files hold the rotation that acts from the right"""
        one = torch.eye(turns.shape[-1], dtype=turns.dtype, device=turns.device)
        rows = weight.reshape(turns.shape[0], turns.shape[1], -1)
        turned = weight + (strength * (turns - one).transpose(-1, -2) @ rows).reshape(weight.shape)
        return turned if self.rescale is None else plain(self.rescale, weight, weight.dtype).reshape(-1, *[1] * (weight.ndim - 1)) * turned

    def _butterfly(self, turns: Tensor, weight: Tensor, strength: float) -> Tensor:
        """Layer i turns blocks made of rows that lie 2^i·b/2 apart."""
        one = torch.eye(turns.shape[-1], dtype=turns.dtype, device=turns.device)
        rows = weight.flatten(1)
        for i, layer in enumerate(turns):
            apart = 2**i * (turns.shape[-1] // 2)
            shuffled = rows.reshape(-1, 2, apart, rows.shape[1]).transpose(1, 2)
            blocks = shuffled.reshape(turns.shape[1], turns.shape[-1], -1)
            moved = (strength * layer + (1 - strength) * one) @ blocks
            rows = moved.reshape(-1, apart, 2, rows.shape[1]).transpose(1, 2).reshape(rows.shape)
        if self.rescale is not None:
            rows = rows * plain(self.rescale, weight, weight.dtype).reshape(-1, 1)
        return rows.reshape(weight.shape)
