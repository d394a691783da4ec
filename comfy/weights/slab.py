"""One component of one file in RAM, in the form in which it runs.

A slab is one shared mapping; its tensors are views of it. The memory goes back to the system when the slab and the last
of its views are gone: the views hold the mapping, nobody closes it.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Iterator, Sequence

import torch

from comfy.errors import HostMemoryExhausted
from comfy.weights.plan import ALIGNMENT, Entries, Region, SlabEntry, SlabKey, SlabPlan, View, plan_slab

__all__ = ["ALIGNMENT", "Entries", "Region", "Slab", "SlabEntry", "SlabKey", "SlabPlan", "View", "allocate", "plan_slab"]


class Slab:
    """The bytes of one SlabKey and the index of its tensors. Written once, before anyone but its reader sees it.

    nbytes  length of the mapping's used part
    flat    (nbytes,) uint8, all of it
    page_locked  whether CUDA may copy from the mapping without a stop in between; set by what the cache locks pages with
    """

    def __init__(self, key: SlabKey, plan: SlabPlan, flat: torch.Tensor | None = None) -> None:
        """Allocate the mapping, or lay the plan over `flat`. Raises HostMemoryExhausted when the system has no room."""
        self.key = key
        self.plan = plan
        self.nbytes = plan.nbytes
        self._mapping: Mapping | None = None
        if flat is None:
            self._mapping, flat = allocate(plan.nbytes, key.file.name)
        self.flat = flat
        self.page_locked = False

    def before_unmap(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when the last view is gone, just before the memory goes back to the system."""
        assert self._mapping is not None
        self._mapping.callback = callback

    def names(self) -> Iterator[str]:
        """The run-time names, in the order of the entries."""
        return iter(self.plan.views)

    def __contains__(self, name: object) -> bool:
        return name in self.plan.views

    def tensor(self, name: str) -> torch.Tensor:
        """The run-time tensor `name`: a view, never to be written to. KeyError when there is none."""
        return self.plan.views[name].of(self.flat)

    def views(self, flat: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Every run-time tensor as a view of this slab, or of `flat`: a copy of its bytes on any device."""
        flat = self.flat if flat is None else flat
        return {name: view.of(flat) for name, view in self.plan.views.items()}

    def original_names(self) -> Iterator[str]:
        """The names in the file of all tensors that the slab holds."""
        return iter(self.plan.originals)

    def original(self, name: str) -> torch.Tensor:
        """A tensor by its name in the file, whole and in the file's orientation, in the run-time dtype: a view."""
        region = self.plan.originals[name]
        tensor = View(region, None, None).of(self.flat)
        return tensor.t() if region.transpose else tensor

    def __repr__(self) -> str:
        return f"Slab({self.key.file.name}, {self.key.component}, {self.key.dtype}, {self.nbytes} bytes)"


class Mapping(mmap.mmap):
    """A mapping that says when it goes."""

    callback: Callable[[], None] | None = None

    def __del__(self) -> None:
        if self.callback is not None:
            self.callback()


def allocate(nbytes: int, name: str = "slab") -> tuple[Mapping, torch.Tensor]:
    """A shared mapping, and a zeroed (nbytes,) uint8 tensor over it; the mapping lives as long as any view of that.

    A memfd, so that another process can map the same bytes; anonymous memory where the system has no memfd.
    Raises HostMemoryExhausted.
    """
    length = max(nbytes, mmap.PAGESIZE)  # a mapping cannot be empty
    try:
        mapping = _memfd_mapping(length, name) if hasattr(os, "memfd_create") else Mapping(-1, length)
    except (OSError, OverflowError, MemoryError) as error:
        raise HostMemoryExhausted("The system gives no more memory.", file=name, needed_bytes=nbytes) from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            mapping.madvise(mmap.MADV_HUGEPAGE)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a kernel without huge pages; ordinary ones do
                raise
    with torch.inference_mode(False):  # tensors born in inference mode could never be used outside it
        return mapping, torch.frombuffer(mapping, dtype=torch.uint8)[:nbytes]


def _memfd_mapping(length: int, name: str) -> Mapping:
    descriptor = os.memfd_create("weights:" + name[:200].encode("ascii", "replace").decode(), os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, length)
        return Mapping(descriptor, length, flags=mmap.MAP_SHARED)
    finally:
        os.close(descriptor)  # the mapping keeps a descriptor of its own


def resolve(entries: Entries) -> Sequence[SlabEntry]:
    """The entries themselves, found now when they are a function."""
    return entries() if callable(entries) else entries
