"""Which pieces of a step are evaluated in one batch.

The answer depends on shapes and on a fixed budget, never on what memory is free at the moment: one seed must give the
same bytes on a busy and on an idle GPU (contract: parallel-hazards.md 27).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from comfy.sampling.areas import Piece


class Row(NamedTuple):
    """A piece and the index of the conditioning list that it belongs to (0 = positive, 1 = negative, ...)."""

    piece: Piece
    side: int


def can_share(one: Piece, other: Piece) -> bool:
    """Whether two pieces can be rows of one batch."""
    if one.input_x.shape != other.input_x.shape or one.conditioning.keys() != other.conditioning.keys():
        return False
    if one.control is not other.control or one.patches is not other.patches or one.hooks is not other.hooks:
        return False
    return all(value.can_concat(other.conditioning[name]) for name, value in one.conditioning.items())


def batches(rows: Sequence[Row], model: Any) -> list[list[Row]]:
    """Split `rows` into batches, each holding later rows first.

    A batch takes everything that can share it with the first row left, or the largest 1/n of that which fits into
    `model.batch_budget_bytes` by `model.memory_required`. A model without a budget takes all.
    """
    left, result = list(rows), []
    while left:
        together = [row for row in left if can_share(left[0].piece, row.piece)]
        together.reverse()
        batch = together[: rows_that_fit(together, model)]
        result.append(batch)
        taken = {id(row) for row in batch}
        left = [row for row in left if id(row) not in taken]
    return result


def rows_that_fit(together: Sequence[Row], model: Any) -> int:
    """How many of `together` one evaluation may hold: all, or the largest len // n within the budget, at least one."""
    budget = getattr(model, "batch_budget_bytes", None)
    if budget is None or not hasattr(model, "memory_required"):
        return len(together)
    shape = list(together[0].piece.input_x.shape)
    for part in range(1, len(together) + 1):
        count = max(len(together) // part, 1)
        if count == 1 or model.memory_required([count * shape[0], *shape[1:]]) <= budget:
            return count
    return 1


def join(conditionings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The conditioning of a batch: each value joined over its rows, by argument of apply_model."""
    first, others = conditionings[0], conditionings[1:]
    return {name: value.concat([other[name] for other in others]) for name, value in first.items()}


def joined_input(batch: Sequence[Row]) -> Tensor:
    """(rows x b, c, ...): the inputs of a batch, one under the other."""
    return torch.cat([row.piece.input_x for row in batch])
