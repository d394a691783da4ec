"""Run a function tile by tile and blend the tiles. Source: goldens README, section G, "tiled_scale"."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from comfy.errors import InputUnusable

#: scale of one axis: a factor, or a function of a length for axes whose sizes are not proportional (video frames)
Scale = float | Callable[[float], float]


class StepCounter(Protocol):
    """What tells someone how far the tiles are."""

    def update(self, value: int, /) -> Any: ...


def tile_starts(size: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin along one axis of `size`; [0] when one tile covers it. Raises InputUnusable for no progress."""
    if size <= tile:
        return [0]
    if overlap >= tile:
        raise InputUnusable("Tiles must be larger than their overlap.", tile=tile, overlap=overlap)
    return [max(0, min(size - overlap, start)) for start in range(0, size - overlap, tile - overlap)]


def get_tiled_scale_steps(width: int, height: int, tile_x: int, tile_y: int, overlap: int) -> int:
    """How many tiles `tiled_scale` will make for one picture."""
    return len(tile_starts(width, tile_x, overlap)) * len(tile_starts(height, tile_y, overlap))


def tiled_scale(
    samples: torch.Tensor,
    function: Callable[[torch.Tensor], torch.Tensor],
    tile_x: int = 64,
    tile_y: int = 64,
    overlap: int = 8,
    upscale_amount: float = 4,
    out_channels: int = 3,
    output_device: torch.device | str = "cpu",
    pbar: StepCounter | None = None,
) -> torch.Tensor:
    """`tiled_scale_multidim` for pictures: samples (b, c, h, w) -> (b, out_channels, h k, w k), k = upscale_amount."""
    return tiled_scale_multidim(samples, function, (tile_y, tile_x), overlap, upscale_amount, out_channels, output_device, pbar=pbar)


def tiled_scale_multidim(
    samples: torch.Tensor,
    function: Callable[[torch.Tensor], torch.Tensor],
    tile: Sequence[int] = (64, 64),
    overlap: int | Sequence[int] = 8,
    upscale_amount: Scale | Sequence[Scale] = 4,
    out_channels: int = 3,
    output_device: torch.device | str = "cpu",
    downscale: bool = False,
    index_formulas: Scale | Sequence[Scale] | None = None,
    pbar: StepCounter | None = None,
) -> torch.Tensor:
    """Apply `function` to overlapping tiles of each sample and average them, weighted by linear feathers.

    samples         (b, c, *spatial); `function` maps (1, c, *tile) to (1, out_channels, *scaled tile)
    tile, overlap   per spatial axis, in samples' units
    upscale_amount  how lengths scale, or shrink with `downscale`; index_formulas: how positions do, when different
    Returns (b, out_channels, *scaled) float32 on `output_device`.
    """
    dims = len(tile)
    overlaps = list(overlap) if isinstance(overlap, Sequence) else [overlap] * dims
    lengths = _per_axis(upscale_amount, dims, downscale)
    places = lengths if index_formulas is None else _per_axis(index_formulas, dims, downscale)
    spatial = samples.shape[2:]
    starts = [tile_starts(size, side, lap) for size, side, lap in zip(spatial, tile, overlaps)]
    size_out = [round(scale(size)) for scale, size in zip(lengths, spatial)]
    output = torch.empty((samples.shape[0], out_channels, *size_out), device=output_device)
    for b in range(samples.shape[0]):
        sample = samples[b : b + 1]
        if all(len(axis) == 1 for axis in starts):
            output[b : b + 1] = function(sample).to(output)
            if pbar is not None:
                pbar.update(1)
            continue
        total, weights = torch.zeros_like(output[b : b + 1]), torch.zeros_like(output[b : b + 1])
        for corner in itertools.product(*starts):
            part = sample
            for axis, (start, side, size) in enumerate(zip(corner, tile, spatial)):
                part = part.narrow(axis + 2, start, min(side, size - start))
            made = function(part).to(output)
            weight = _feather(made, [round(scale(lap)) for scale, lap in zip(lengths, overlaps)])
            where = (slice(None), slice(None), *_slices(corner, places, made.shape[2:], size_out))
            fits = (slice(None), slice(None), *(slice(0, s.stop - s.start) for s in where[2:]))
            total[where] += (made * weight)[fits]
            weights[where] += weight[fits]
            if pbar is not None:
                pbar.update(1)
        output[b : b + 1] = total / weights
    return output


def _per_axis(scale: Scale | Sequence[Scale], dims: int, downscale: bool) -> list[Callable[[float], float]]:
    scales = list(scale) if isinstance(scale, Sequence) else [scale] * dims
    return [_scaler(one, downscale) for one in scales]


def _scaler(scale: Scale, downscale: bool) -> Callable[[float], float]:
    if callable(scale):
        return scale
    factor = scale
    return (lambda length: length / factor) if downscale else (lambda length: length * factor)


def _slices(corner: Sequence[int], places: Sequence[Callable[[float], float]], made: Sequence[int], size_out: Sequence[int]) -> list[slice]:
    starts = [round(place(start)) for place, start in zip(places, corner)]
    return [slice(start, min(size, start + length)) for start, length, size in zip(starts, made, size_out)]


def _feather(like: torch.Tensor, feathers: Sequence[int]) -> torch.Tensor:
    """(1, c, *spatial) of weights: (t + 1)/F at distance t < F from either end of each axis, multiplied."""
    weight = torch.ones_like(like)
    for axis, feather in enumerate(feathers):
        size = like.shape[axis + 2]
        ramp = like.new_ones(size)
        for t in range(min(feather, size)):
            ramp[t] *= (t + 1) / feather
            ramp[size - 1 - t] *= (t + 1) / feather
        shape = [1] * like.ndim
        shape[axis + 2] = size
        weight = weight * ramp.reshape(shape)
    return weight
