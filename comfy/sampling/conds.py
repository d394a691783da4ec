"""What a model family makes of a conditioning: named values that can be cut to an area, batched and joined.

`SamplingModel.extra_conds` returns {argument of apply_model: one of these}. Two values that `can_concat` are evaluated
in one batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

#: cross-attention lengths are repeated to a common multiple of at most this many times each
MAX_LENGTH_RATIO = 4


def repeat_to_batch(tensor: Tensor, batch_size: int) -> Tensor:
    """(b, ...) -> (batch_size, ...), repeated cyclically or cut."""
    have = tensor.shape[0]
    if have > batch_size:
        return tensor[:batch_size]
    if have < batch_size:
        return tensor.repeat((math.ceil(batch_size / have),) + (1,) * (tensor.ndim - 1))[:batch_size]
    return tensor


class CONDRegular:
    """A tensor (b, ...) that is repeated over the batch; equal shapes share a batch."""

    def __init__(self, cond: Any) -> None:
        self.cond = cond

    def _copy_with(self, cond: Any) -> Any:
        return type(self)(cond)

    def process_cond(self, batch_size: int, area: Sequence[int] | None = None, device: Any = None, **kwargs: Any) -> Any:
        """This value for `batch_size` rows of the area (sizes, then offsets; None = everywhere), on `device`."""
        return self._copy_with(_to(repeat_to_batch(self.cond, batch_size), device))

    def can_concat(self, other: Any) -> bool:
        """Whether the two can be rows of one batch."""
        return bool(self.cond.shape == other.cond.shape and self.cond.device == other.cond.device)

    def concat(self, others: Sequence[Any]) -> Any:
        """This value's rows followed by those of `others`."""
        return torch.cat([self.cond, *(other.cond for other in others)])

    def size(self) -> list[int]:
        """The shape that counts towards the memory of a batch."""
        return list(self.cond.size())


class CONDNoiseShape(CONDRegular):
    """A tensor in the shape of the latent (masks, concatenated latents): cut to the area that is evaluated."""

    def process_cond(self, batch_size: int, area: Sequence[int] | None = None, device: Any = None, **kwargs: Any) -> Any:
        data = self.cond
        if area is not None:
            dims = len(area) // 2
            for axis in range(dims):
                data = data.narrow(axis + 2, area[axis + dims], area[axis])
        return self._copy_with(_to(repeat_to_batch(data, batch_size), device))


class CONDCrossAttn(CONDRegular):
    """Tokens (b, length, features). Lengths may differ: repeating tokens leaves attention over them unchanged."""

    def can_concat(self, other: Any) -> bool:
        mine, theirs = self.cond.shape, other.cond.shape
        if mine == theirs:
            return bool(self.cond.device == other.cond.device)
        if mine[0] != theirs[0] or mine[2:] != theirs[2:] or self.cond.device != other.cond.device:
            return False
        ratio = math.lcm(mine[1], theirs[1]) // min(mine[1], theirs[1])
        return ratio <= MAX_LENGTH_RATIO

    def concat(self, others: Sequence[Any]) -> Any:
        tokens = [self.cond, *(other.cond for other in others)]
        length = math.lcm(*(t.shape[1] for t in tokens))
        return torch.cat([t.repeat(1, length // t.shape[1], 1) if t.shape[1] < length else t for t in tokens])


class CONDConstant(CONDRegular):
    """Any value that is the same for every row; equal values share a batch."""

    def process_cond(self, batch_size: int, area: Sequence[int] | None = None, device: Any = None, **kwargs: Any) -> Any:
        return self._copy_with(self.cond)

    def can_concat(self, other: Any) -> bool:
        return bool(self.cond == other.cond)

    def concat(self, others: Sequence[Any]) -> Any:
        return self.cond

    def size(self) -> list[int]:
        return [1]


class CONDList(CONDRegular):
    """A list of tensors (b, ...), such as reference latents; lists of equal shapes share a batch."""

    def process_cond(self, batch_size: int, area: Sequence[int] | None = None, device: Any = None, **kwargs: Any) -> Any:
        return self._copy_with([_to(repeat_to_batch(c, batch_size), device) for c in self.cond])

    def can_concat(self, other: Any) -> bool:
        return len(self.cond) == len(other.cond) and all(a.shape == b.shape for a, b in zip(self.cond, other.cond))

    def concat(self, others: Sequence[Any]) -> Any:
        return [torch.cat([self.cond[i], *(other.cond[i] for other in others)]) for i in range(len(self.cond))]

    def size(self) -> list[int]:
        """As many elements as all the tensors together."""
        elements = sum(math.prod(c.size()) for c in self.cond)
        rows = self.cond[0].shape[0] if self.cond else 1
        return [1, 1, math.ceil(elements / max(rows, 1))]


def _to(tensor: Tensor, device: Any) -> Tensor:
    return tensor if device is None else tensor.to(device)
