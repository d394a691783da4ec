"""Where each tensor of a component will lie in its slab: keys, entries, regions and views. Pure arithmetic, no bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from comfy.errors import WeightFileInvalid
from comfy.weights.files import FileIdentity, TensorInfo

#: start of every region in a slab: enough for the widest vector load of a GPU and for registered memory
ALIGNMENT = 256


@dataclass(frozen=True)
class SlabKey:
    """What one slab holds: one component of one state of one file in one run-time form.

    component  "denoiser", "clip", "vae" … as comfy/models names them
    dtype      label of the run-time dtype ("float16"), None for the dtypes of the file
    layout     label of the run-time layout
    """

    file: FileIdentity
    component: str
    dtype: str | None = None
    layout: str = "plain"


@dataclass(frozen=True)
class SlabEntry:
    """One run-time tensor and what it is made of, applied in this order: rows of the source, transpose, shape, dtype.

    name       run-time name: the parameter's name in its module
    source     the tensor in the file
    dtype      run-time dtype
    rows       (first, end) range of the source's first dimension
    transpose  swap the two dimensions of a matrix
    shape      run-time shape, when it differs
    scale      a tensor of one element in the same file that the source is multiplied by ("scaled" 8-bit files)
    """

    name: str
    source: TensorInfo
    dtype: torch.dtype
    rows: tuple[int, int] | None = None
    transpose: bool = False
    shape: tuple[int, ...] | None = None
    scale: TensorInfo | None = None


#: a slab's entries, or a function that finds them; it may read the file's header and runs without any lock
Entries = Sequence[SlabEntry] | Callable[[], Sequence[SlabEntry]]


@dataclass(frozen=True)
class Region:
    """One whole source tensor in the slab. Entries that take rows of one source share its region.

    shape  of the region: that of the source, swapped when transposed
    """

    source: TensorInfo
    dtype: torch.dtype
    transpose: bool
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    scale: TensorInfo | None = None


@dataclass(frozen=True)
class View:
    """A run-time tensor as a part of a region: `rows` of it (columns when it is transposed), then `shape`."""

    region: Region
    rows: tuple[int, int] | None
    shape: tuple[int, ...] | None

    def of(self, flat: torch.Tensor) -> torch.Tensor:
        """The tensor in `flat`: a uint8 vector with the slab's bytes, wherever it lies."""
        region = self.region
        with torch.inference_mode(False):  # a view made in inference mode could never be used outside it
            tensor = flat[region.offset : region.offset + region.nbytes].view(region.dtype).view(region.shape)
            if self.rows is not None:
                tensor = tensor.narrow(1 if region.transpose else 0, self.rows[0], self.rows[1] - self.rows[0])
            return tensor if self.shape is None else tensor.view(self.shape)


@dataclass(frozen=True)
class SlabPlan:
    """All regions in the order of their offsets, and both kinds of views. nbytes is a multiple of ALIGNMENT."""

    regions: tuple[Region, ...]
    views: Mapping[str, View]
    #: by the name in the file: the whole tensor in the file's own orientation, as LoRA, merging and saving know it
    originals: Mapping[str, Region]
    nbytes: int


def plan_slab(key: SlabKey, entries: Sequence[SlabEntry]) -> SlabPlan:
    """Lay `entries` out in the order given. Raises WeightFileInvalid when one asks for what its source does not have."""
    regions: dict[tuple[str, torch.dtype, bool], Region] = {}
    views: dict[str, View] = {}
    offset = 0
    for entry in entries:
        if entry.name in views:
            raise WeightFileInvalid("Two tensors have the same run-time name.", file=key.file.name, tensor=entry.name)
        _check(key, entry)
        place = (entry.source.name, entry.dtype, entry.transpose)
        region = regions.get(place)
        if region is None:
            shape = entry.source.shape[::-1] if entry.transpose else entry.source.shape
            nbytes = math.prod(shape) * entry.dtype.itemsize
            region = regions[place] = Region(entry.source, entry.dtype, entry.transpose, shape, offset, nbytes, entry.scale)
            offset += -(-nbytes // ALIGNMENT) * ALIGNMENT
        views[entry.name] = View(region, entry.rows, entry.shape)
    originals = {region.source.name: region for region in reversed(regions.values())}
    return SlabPlan(tuple(regions.values()), views, originals, offset)


def _check(key: SlabKey, entry: SlabEntry) -> None:
    shape = entry.source.shape
    problem = None
    if entry.transpose and len(shape) != 2:
        problem = "Only a matrix can be transposed."
    elif entry.rows is not None and not (shape and 0 <= entry.rows[0] <= entry.rows[1] <= shape[0]):
        problem = "The tensor does not have these rows."
    elif entry.transpose and entry.rows is not None and entry.shape is not None:
        problem = "Rows of a transposed matrix cannot take another shape."
    elif entry.scale is not None and math.prod(entry.scale.shape) != 1:
        problem = "A scale must be one number."
    elif entry.shape is not None:
        count = math.prod(shape) if entry.rows is None else math.prod(shape[1:]) * (entry.rows[1] - entry.rows[0])
        if math.prod(entry.shape) != count:
            problem = "The tensor cannot take the run-time shape."
    if problem is not None:
        raise WeightFileInvalid(
            problem,
            file=key.file.name,
            tensor=entry.source.name,
            shape=list(shape),
            rows=entry.rows,
            wanted=entry.shape and list(entry.shape),
        )
