"""HyperTile (T. F. Fernandes 2023, github.com/tfernd/HyperTile, its README): self-attention inside tiles of the picture.

A layer of h by w tokens is cut in tiles of equal size, so attention costs tokens times tile instead of tokens squared.
The size changes from step to step and layer to layer, so that no seam stays at one place.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from comfy.sampling.network_patches.places import grid_of, seed_of

PIXELS_PER_CELL = 8
#: key of the (rows, columns, height, width) of the tiling in one layer's options
TILING = "hypertile"


@dataclass(frozen=True)
class HyperTile:
    """The two patches around self-attention.

    tile_size    least side of a tile in pixels; swap_size: among how many sizes a layer chooses
    max_depth    the deepest level that is cut: 0 is the outermost
    scale_depth  let tiles have twice as many tokens a side with each level
    """

    tile_size: int
    swap_size: int
    max_depth: int
    scale_depth: bool

    def cut(self, n: Tensor, context: Tensor, value: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """An attn1 patch: each (b, h w, c) -> (b tiles, tokens of a tile, c)."""
        tiling = self._tiling(n.shape[1], extra)
        if tiling is None or context.shape[1] != n.shape[1] or value.shape[1] != n.shape[1]:
            return n, context, value
        extra[TILING] = tiling
        cut_n = into_tiles(n, *tiling)
        cut_context = cut_n if context is n else into_tiles(context, *tiling)
        return cut_n, cut_context, cut_context if value is context else into_tiles(value, *tiling)

    def join(self, n: Tensor, extra: dict[str, Any]) -> Tensor:
        """An attn1 output patch: the reverse."""
        tiling = extra.pop(TILING, None)
        return n if tiling is None else from_tiles(n, *tiling)

    def _tiling(self, tokens: int, extra: dict[str, Any]) -> tuple[int, int, int, int] | None:
        grid = grid_of(tokens, extra)
        if grid is None or grid[2] > self.max_depth:
            return None
        height, width, depth = grid
        least = max(self.tile_size // PIXELS_PER_CELL, 1) * (2**depth if self.scale_depth else 1)
        chance = random.Random(seed_of(extra))
        rows, columns = (chance.choice(tile_counts(size, least, self.swap_size)) for size in (height, width))
        return None if rows == columns == 1 else (rows, columns, height, width)


def tile_counts(size: int, least: int, options: int) -> list[int]:
    """Into how many tiles a side of `size` can be cut: those of the `options` smallest tiles that are `least` or larger."""
    sides = [side for side in range(min(least, size), size + 1) if size % side == 0]
    return [size // side for side in sides[:options]]


def into_tiles(x: Tensor, rows: int, columns: int, height: int, width: int) -> Tensor:
    """(b, height width, c) -> (b rows columns, height/rows width/columns, c)"""
    b, _, c = x.shape
    x = x.reshape(b, rows, height // rows, columns, width // columns, c)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(b * rows * columns, -1, c)


def from_tiles(x: Tensor, rows: int, columns: int, height: int, width: int) -> Tensor:
    """The reverse of `into_tiles`."""
    b, c = x.shape[0] // (rows * columns), x.shape[-1]
    x = x.reshape(b, rows, columns, height // rows, width // columns, c)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(b, height * width, c)
