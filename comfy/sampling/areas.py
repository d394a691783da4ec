"""Where a conditioning counts: areas, masks and timestep ranges of the entries of a conditioning list (contract D.1).

An entry is a dict. An area is a tuple, sizes first and then offsets, in latent units: (h, w, y, x) for images. Entries
are never changed in place: nodes and caches hold them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from comfy.sampling.conds import repeat_to_batch
from comfy.sampling.host import host_value, round32

Entry = dict[str, Any]
Area = tuple[int, ...]
#: latent pixels over which the edge of an area fades at most
FEATHER = 8


class Piece(NamedTuple):
    """One entry as it is evaluated at one sigma."""

    input_x: Tensor  # (b, c, ...), cut to the area
    mult: Tensor  # weight map like input_x
    conditioning: dict[str, Any]  # argument of apply_model -> CONDRegular ..., for this batch and area
    area: Area | None
    control: Any
    patches: dict[str, Any] | None
    uuid: Any
    hooks: Any


def piece_of(entry: Entry, x_in: Tensor, sigma: float | Tensor) -> Piece | None:
    """The part of `x_in` that `entry` is evaluated on, with its weights; None when it is not active at `sigma`."""
    if not is_active(entry, sigma):
        return None
    area = fit_area(entry.get("area"), x_in.shape[2:])
    input_x = x_in if area is None else _cut(x_in, area, first_axis=2)
    mult = _weights(entry, input_x, x_in.shape, area)
    model_conds = entry.get("model_conds", {})
    conditioning = {name: cond.process_cond(batch_size=x_in.shape[0], device=x_in.device, area=area) for name, cond in model_conds.items()}
    patches = {"middle_patch": [_gligen_patch(entry["gligen"], input_x)]} if entry.get("gligen") is not None else None
    return Piece(input_x, mult, conditioning, area, entry.get("control"), patches, entry.get("uuid"), entry.get("hooks"))


def _gligen_patch(gligen: tuple[Any, ...], input_x: Tensor) -> Any:
    kind, model, boxes = gligen[0], gligen[1], gligen[2]
    setter = model.model.set_position if kind == "position" else model.model.set_empty
    return setter(input_x.shape, boxes, input_x.device) if kind == "position" else setter(input_x.shape, input_x.device)


def is_active(entry: Entry, sigma: float | Tensor) -> bool:
    """Whether `sigma` lies in the entry's range; both ends count, compared in float32."""
    start, end = entry.get("timestep_start"), entry.get("timestep_end")
    if start is None and end is None:
        return True
    now = round32(host_value(sigma))
    return not ((start is not None and now > round32(start)) or (end is not None and now < round32(end)))


def fit_area(area: Sequence[int] | None, canvas: Sequence[int]) -> Area | None:
    """`area` over the canvas's dimensions, its sizes clamped to the canvas. Missing leading dimensions (time) are taken whole."""
    if area is None:
        return None
    dims, have = len(canvas), len(area) // 2
    sizes, offsets = list(area[:have]), list(area[have:])
    if have > dims:
        sizes, offsets = sizes[-dims:], offsets[-dims:]
    elif have < dims:
        sizes, offsets = [*canvas[: dims - have], *sizes], [0] * (dims - have) + offsets
    sizes = [min(size, length - offset) for size, offset, length in zip(sizes, offsets, canvas)]
    return (*sizes, *offsets)


def _cut(tensor: Tensor, area: Area, first_axis: int) -> Tensor:
    dims = len(area) // 2
    for axis in range(dims):
        tensor = tensor.narrow(axis + first_axis, area[axis + dims], area[axis])
    return tensor


def _weights(entry: Entry, input_x: Tensor, full_shape: Sequence[int], area: Area | None) -> Tensor:
    """strength x mask x mask_strength x feather, like `input_x`; the feather only without a mask."""
    strength = entry.get("strength", 1.0)
    if "mask" in entry:
        mask = entry["mask"].to(device=input_x.device, dtype=input_x.dtype)
        if area is not None:
            dims = len(area) // 2
            mask = _cut(mask, area, first_axis=mask.ndim - dims) if mask.ndim > dims else mask
        mask = repeat_to_batch(mask, input_x.shape[0]) * entry.get("mask_strength", 1.0)
        while mask.ndim < input_x.ndim:
            mask = mask.unsqueeze(1)
        return mask.expand(input_x.shape) * strength
    mult = torch.ones_like(input_x) * strength
    return mult if area is None else _feather(mult, full_shape[2:], area)


def _feather(mult: Tensor, canvas: Sequence[int], area: Area) -> Tensor:
    dims = len(area) // 2
    for axis in range(dims):
        length, offset = area[axis], area[axis + dims]
        width = min(FEATHER, length // 4)
        if width == 0:
            continue
        ramp = (torch.arange(width, dtype=mult.dtype) + 1) / width
        profile = torch.ones(length, dtype=mult.dtype)
        if offset > 0:
            profile[:width] *= ramp
        if offset + length < canvas[axis]:
            profile[-width:] *= ramp.flip(0)
        shape = [1] * mult.ndim
        shape[axis + 2] = length
        mult = mult * profile.reshape(shape).to(mult.device)
    return mult


def resolve_areas_and_masks(entries: Sequence[Entry], canvas: Sequence[int], device: Any) -> list[Entry]:
    """Percent areas and mask bounds -> areas in latent units; masks -> (b, *canvas) float on `device`.

    canvas  spatial shape of the latent, (h, w) for images
    """
    return [_resolved(dict(entry), tuple(canvas), device) for entry in entries]


def _resolved(entry: Entry, canvas: tuple[int, ...], device: Any) -> Entry:
    area = entry.get("area")
    if area is not None and area[0] == "percentage":
        parts = area[1:]
        dims = len(parts) // 2
        over = canvas[-dims:]
        sizes = [max(1, round(f * n)) for f, n in zip(parts[:dims], over)]
        entry["area"] = (*sizes, *(round(f * n) for f, n in zip(parts[dims:], over)))
    if "mask" in entry:
        mask = entry["mask"].to(device)
        dims = len(canvas)
        if mask.ndim == dims:
            mask = mask.unsqueeze(0)
        if mask.shape[1:] != canvas:
            mask = _resize(mask, canvas)
        if entry.get("set_area_to_bounds", False) and dims == 2:
            entry["area"] = mask_bounds(mask)
        entry["mask"] = mask
    return entry


def _resize(mask: Tensor, canvas: tuple[int, ...]) -> Tensor:
    """(b, h, w) -> (b, *canvas), bilinear; a mask without time is repeated over it."""
    if mask.ndim - 1 < len(canvas):
        mask = torch.nn.functional.interpolate(mask.unsqueeze(1), size=canvas[-2:], mode="bilinear", align_corners=False).squeeze(1)
        return mask.unsqueeze(1).expand(mask.shape[0], *canvas)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(canvas)]
    return torch.nn.functional.interpolate(mask.unsqueeze(1), size=canvas, mode=mode, align_corners=False).squeeze(1)


def mask_bounds(mask: Tensor) -> Area:
    """mask (b, h, w) -> the box of its non-zero elements (of all items), at least 8 x 8; an empty one gives (8, 8, 0, 0)."""
    found = mask.abs().amax(dim=0).nonzero()
    if len(found) == 0:
        return (8, 8, 0, 0)
    (top, left), (bottom, right) = found.amin(dim=0).tolist(), found.amax(dim=0).tolist()
    return (max(8, bottom - top + 1), max(8, right - left + 1), top, left)


def with_timesteps(entries: Sequence[Entry], model_sampling: Any) -> list[Entry]:
    """start_percent and end_percent -> the sigmas between which the entry is active."""
    ready = []
    for given in entries:
        entry = dict(given)
        for percent, sigma in (("start_percent", "timestep_start"), ("end_percent", "timestep_end")):
            if percent in entry:
                entry[sigma] = model_sampling.percent_to_sigma(entry[percent])
        ready.append(entry)
    return ready


def add_area_twins(conds: dict[str, list[Entry]]) -> dict[str, list[Entry]]:
    """Give every entry with an area a counterpart over the same area in each other list (contract D.1, twin rule)."""
    lists = {side: list(entries) for side, entries in conds.items()}
    for side in lists:
        for entry in list(lists[side]):
            if entry.get("area") is None:
                continue
            for other, entries in lists.items():
                if other != side:
                    twin = _twin(entry, entries)
                    if twin is not None:
                        entries.append(twin)
    return lists


def _twin(entry: Entry, candidates: Sequence[Entry]) -> Entry | None:
    area = tuple(entry["area"])
    smallest: Entry | None = None
    for candidate in candidates:
        theirs = candidate.get("area")
        if theirs is not None and not _encloses(theirs, area):
            continue
        if smallest is None or _volume(theirs) < _volume(smallest.get("area")):
            smallest = candidate
    if smallest is None:
        return None
    if smallest.get("area") is not None and tuple(smallest["area"]) == area:
        return None
    return {**entry, "model_conds": dict(smallest.get("model_conds", {})), "cross_attn": smallest.get("cross_attn")}


def _encloses(outer: Sequence[int], inner: Sequence[int]) -> bool:
    if len(outer) != len(inner):
        return False
    dims = len(outer) // 2
    return all(outer[dims + i] <= inner[dims + i] and outer[dims + i] + outer[i] >= inner[dims + i] + inner[i] for i in range(dims))


def _volume(area: Sequence[int] | None) -> float:
    if area is None:
        return float("inf")
    volume = 1
    for size in area[: len(area) // 2]:
        volume *= size
    return float(volume)
