"""Token merging: Bolya and Hoffman 2023, arXiv:2303.17604: self-attention over fewer tokens, alike ones merged.

One token of each 2 by 2 square stays (section 4: "destination"), another one in each step. Of the others, those most alike
to a token that stays are averaged into it before attention and get its result after it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from comfy.sampling.network_patches.places import grid_of, seed_of

STRIDE = 2
#: key of the Merging of one layer in its options
MERGING = "token_merging"


@dataclass(frozen=True)
class Merging:
    """Which tokens go where. kept, merged, into, stay are indices (b or 1, n): see `merge`.

    stay    tokens that stay, at least one in each square
    kept    of the others, those that stay as well
    merged  of the others, those that are averaged into the token `into` of `stay`
    """

    stay: Tensor
    kept: Tensor
    merged: Tensor
    into: Tensor
    tokens: int

    def merge(self, x: Tensor) -> Tensor:
        """(b, tokens, c) -> (b, kept + stay, c). A sum over a table, not a scatter: the same bytes in each run."""
        taken = torch.nn.functional.one_hot(self.into, self.stay.shape[1]).to(x.dtype).transpose(1, 2)
        total = _take(x, self.stay) + taken @ _take(x, self.merged)
        mean = total / (taken.sum(dim=-1, keepdim=True) + 1.0)
        return torch.cat([_take(x, self.kept), mean], dim=1)

    def unmerge(self, x: Tensor) -> Tensor:
        """(b, kept + stay, c) -> (b, tokens, c)"""
        kept, stay = x[:, : self.kept.shape[1]], x[:, self.kept.shape[1] :]
        out = x.new_empty(x.shape[0], self.tokens, x.shape[-1])
        for where, what in ((self.stay, stay), (self.kept, kept), (self.merged, _take(stay, self.into))):
            out.scatter_(1, where.expand(x.shape[0], -1)[..., None].expand(-1, -1, x.shape[-1]), what)
        return out


@dataclass(frozen=True)
class TokenMerging:
    """The two patches around self-attention of the outermost level. ratio: part of the tokens that is merged, 0..1"""

    ratio: float

    def merge(self, n: Tensor, context: Tensor, value: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """An attn1 patch."""
        grid = grid_of(n.shape[1], extra)
        if grid is None or grid[2] > 0 or context.shape[1] != n.shape[1] or value.shape[1] != n.shape[1]:
            return n, context, value
        merging = plan(n, grid[0], grid[1], self.ratio, seed_of(extra))
        if merging is None:
            return n, context, value
        extra[MERGING] = merging
        merged = merging.merge(n)
        merged_context = merged if context is n else merging.merge(context)
        return merged, merged_context, merged_context if value is context else merging.merge(value)

    def unmerge(self, n: Tensor, extra: dict[str, Any]) -> Tensor:
        """An attn1 output patch."""
        merging = extra.pop(MERGING, None)
        return n if merging is None else merging.unmerge(n)


def plan(x: Tensor, height: int, width: int, ratio: float, seed: str) -> Merging | None:
    """What to merge in tokens (b, height width, c); None when that is nothing."""
    stay, others = _squares(height, width, seed)
    count = min(len(others), int(height * width * ratio))
    if count <= 0 or not stay:
        return None
    stay_1n, others_1n = (torch.tensor([indices], device=x.device) for indices in (stay, others))
    unit = torch.nn.functional.normalize(x.float(), dim=-1)
    likeness, nearest = (_take(unit, others_1n) @ _take(unit, stay_1n).transpose(1, 2)).max(dim=-1)
    order = likeness.argsort(dim=-1, descending=True, stable=True)
    merged, kept = order[:, :count], order[:, count:].sort(dim=-1).values
    rows = others_1n.expand(x.shape[0], -1)
    return Merging(stay_1n, rows.gather(1, kept), rows.gather(1, merged), nearest.gather(1, merged), height * width)


def _squares(height: int, width: int, seed: str) -> tuple[list[int], list[int]]:
    """Indices of one token of each whole square, and of all the others."""
    chance = random.Random(seed)
    stay = []
    for y in range(height // STRIDE):
        for x in range(width // STRIDE):
            chosen = chance.randrange(STRIDE * STRIDE)
            stay.append((y * STRIDE + chosen // STRIDE) * width + x * STRIDE + chosen % STRIDE)
    staying = set(stay)
    return stay, [index for index in range(height * width) if index not in staying]


def _take(x: Tensor, indices: Tensor) -> Tensor:
    """(b, n, c), (b or 1, m) -> (b, m, c)"""
    return x.gather(1, indices.expand(x.shape[0], -1)[..., None].expand(-1, -1, x.shape[-1]))
