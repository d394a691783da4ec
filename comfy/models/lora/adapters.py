"""Changes of a weight by low-rank and related factors. Maths: goldens README, section H.1.

Factors may be tensors or `FileTensor`s; they are moved to the weight's device and computed in float32. Legend for
convolutions: o out, i in, r rank, h w kernel. A change that does not fit its weight is left out with a warning, as files
for a sibling of the model (its inpainting form, say) hold a few of those.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from comfy.models.lora.tensors import plain

log = logging.getLogger(__name__)
#: keeps a norm from being zero where DoRA divides by it
EPSILON = 1.19e-7


class WeightAdapter:
    """The value of a weight patch: W' = W + strength·function(δ), with δ from `delta`.

    alpha       scale times rank; None: scale 1
    dora_scale  magnitudes by output row or by input column: Liu et al. 2024, arXiv:2402.09353
    """

    alpha: Any = None
    dora_scale: Any = None

    def delta(self, weight: Tensor) -> Tensor:
        """δ for `weight` (float32), with as many elements."""
        raise TypeError(f"{type(self).__name__} has no δ of its own")

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
        """`weight` changed, in place where its shape stays."""
        if not self._fits(weight, intermediate_dtype):
            log.warning("an adapter does not fit %s, which is %s: left out", key, list(weight.shape))
            return weight
        delta = self.delta(weight.to(intermediate_dtype)).reshape(weight.shape)
        if self.dora_scale is None:
            return weight.add_(function(strength * delta).to(weight.dtype))
        goal = decomposed(weight.to(intermediate_dtype), function(delta), plain(self.dora_scale, weight, intermediate_dtype))
        return weight.add_((strength * (goal - weight.to(intermediate_dtype))).to(weight.dtype))

    def _fits(self, weight: Tensor, dtype: torch.dtype) -> bool:
        """Whether δ has the weight's number of elements; asked without data, where an error can only be one of shapes."""
        try:
            return self.delta(torch.empty(weight.shape, dtype=dtype, device="meta")).numel() == weight.numel()
        except RuntimeError:
            return False

    def scale(self, rank: int) -> float:
        """alpha / rank, or 1 without alpha."""
        return 1.0 if self.alpha is None else float(plain(self.alpha)) / rank


def decomposed(weight: Tensor, delta: Tensor, magnitude: Tensor) -> Tensor:
    """W + δ with its rows' (or columns') lengths replaced by `magnitude`.

    The length is that of W's rows when `magnitude` has an entry for each, else that of the columns of W + δ: so the files
    were trained.
    """
    changed = weight + delta
    if magnitude.shape[0] == weight.shape[0]:
        norm = weight.flatten(1).norm(dim=1).reshape(-1, *[1] * (weight.ndim - 1))
    else:
        norm = changed.transpose(0, 1).flatten(1).norm(dim=1).reshape(1, -1, *[1] * (weight.ndim - 2))
    return changed * (magnitude / (norm + EPSILON))


@dataclass(frozen=True)
class LoraAdapter(WeightAdapter):
    """δ = scale·up·down. Hu et al. 2021, arXiv:2106.09685; with a core for convolutions: Yeh et al. 2023, arXiv:2309.14859.

    up (o, r, …), down (r, i, …), mid (r, r, h, w) between the two. reshape: the weight is padded with zeros to this shape first.
    """

    up: Any
    down: Any
    alpha: Any = None
    mid: Any = None
    dora_scale: Any = None
    reshape: Any = None

    def calculate_weight(self, weight: Tensor, key: str, *args: Any, **kwargs: Any) -> Tensor:
        if self.reshape is not None:
            weight = padded(weight, tuple(int(n) for n in plain(self.reshape).tolist()))
        return super().calculate_weight(weight, key, *args, **kwargs)

    def delta(self, weight: Tensor) -> Tensor:
        up, down = (plain(part, weight, weight.dtype) for part in (self.up, self.down))
        if self.mid is None:
            return self.scale(down.shape[0]) * (up.flatten(1) @ down.flatten(1))
        mid = plain(self.mid, weight, weight.dtype)
        return self.scale(down.shape[0]) * torch.einsum("or,rshw,si->oihw", up.flatten(1), mid, down.flatten(1))


def padded(weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`weight` in the corner of zeros of `shape`; itself when it does not fit in."""
    if len(shape) != weight.ndim or any(n < m for n, m in zip(shape, weight.shape)) or shape == tuple(weight.shape):
        return weight
    wide = weight.new_zeros(shape)
    wide[tuple(slice(n) for n in weight.shape)] = weight
    return wide


@dataclass(frozen=True)
class LohaAdapter(WeightAdapter):
    """δ = scale·(w1a w1b) ∘ (w2a w2b). Hyeon-Woo et al. 2021, arXiv:2108.06098. t1, t2 (r, r, h, w): cores of convolutions."""

    w1_a: Any
    w1_b: Any
    w2_a: Any
    w2_b: Any
    alpha: Any = None
    t1: Any = None
    t2: Any = None
    dora_scale: Any = None

    def delta(self, weight: Tensor) -> Tensor:
        factors = [_factor(a, b, t, weight) for a, b, t in ((self.w1_a, self.w1_b, self.t1), (self.w2_a, self.w2_b, self.t2))]
        return self.scale(self.w1_b.shape[0]) * factors[0] * factors[1]


def _factor(a: Any, b: Any, core: Any, weight: Tensor) -> Tensor:
    """a (o, r) b (r, i), or Σ core_{jk} b_{k·} a_{j·} with a (r, o), b (r, i) and a core (r, r, h, w)"""
    left, right = (plain(part, weight, weight.dtype) for part in (a, b))
    if core is None:
        return left @ right
    return torch.einsum("jkhw,ki,jo->oihw", plain(core, weight, weight.dtype), right, left)


@dataclass(frozen=True)
class LokrAdapter(WeightAdapter):
    """δ = scale·kron(w1, w2), each whole or a product of two. Yeh et al. 2023, arXiv:2309.14859, section 3.

    The scale is alpha/rank with the rank of w2's factors, else of w1's; 1 when neither is a product.
    """

    w1: Any = None
    w2: Any = None
    w1_a: Any = None
    w1_b: Any = None
    w2_a: Any = None
    w2_b: Any = None
    t2: Any = None
    alpha: Any = None
    dora_scale: Any = None

    def delta(self, weight: Tensor) -> Tensor:
        first = _factor(self.w1_a, self.w1_b, None, weight) if self.w1 is None else plain(self.w1, weight, weight.dtype)
        second = _factor(self.w2_a, self.w2_b, self.t2, weight) if self.w2 is None else plain(self.w2, weight, weight.dtype)
        rank = self.w2_b.shape[0] if self.w2 is None else self.w1_b.shape[0] if self.w1 is None else None
        scale = 1.0 if rank is None else self.scale(rank)
        return scale * torch.kron(first.reshape(*first.shape, *[1] * (second.ndim - first.ndim)), second.contiguous())


@dataclass(frozen=True)
class GloraAdapter(WeightAdapter):
    """δ = scale·(W a1 a2 + b1 b2), rank = rows of a2; in older files scale·(W a2 a1 + b2 b1). Chavan et al. 2023, arXiv:2306.07967."""

    a1: Any
    a2: Any
    b1: Any
    b2: Any
    alpha: Any = None
    dora_scale: Any = None

    def delta(self, weight: Tensor) -> Tensor:
        a1, a2, b1, b2 = (plain(part, weight, weight.dtype).flatten(1) for part in (self.a1, self.a2, self.b1, self.b2))
        if b1.shape[0] != weight.shape[0] or b1.shape[1] != b2.shape[0]:
            a1, a2, b1, b2 = a2, a1, b2, b1
        inside = a1 @ a2
        if inside.shape[0] == weight.shape[1]:
            moved = torch.einsum("oi...,ij->oj...", weight, inside).flatten(1)
        else:
            moved = weight.flatten(1) @ inside
        return self.scale(a2.shape[0]) * (moved + b1 @ b2)
