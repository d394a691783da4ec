"""The models that are on one lane's device now."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from comfy.device.assign import build_module
from comfy.errors import HostMemoryExhausted, OutOfDeviceMemory
from comfy.units import gib
from comfy.weights.cache import Lease, WeightCache
from comfy.weights.slab import Entries, Slab, SlabKey

log = logging.getLogger(__name__)

#: (name, weight) -> the weight itself, or a new tensor in its place; it must not write to the weight
Patch = Callable[[str, Tensor], Tensor]


@dataclass(frozen=True)
class ResidentRow:
    """One module on the device. `nbytes` counts a CPU lane's views of a slab as if they were a copy."""

    name: str
    component: str
    dtype: str | None
    patched: bool
    nbytes: int
    missing: tuple[str, ...]


@dataclass(frozen=True)
class ResidentStatistics:
    """What is on the device, least recently used first. Counters run since the start."""

    budget_bytes: int
    used_bytes: int
    hits: int
    loads: int
    evictions: int
    load_bytes: int
    load_s: float
    rows: tuple[ResidentRow, ...]


@dataclass(eq=False)
class _Entry:
    module: nn.Module
    row: ResidentRow
    lease: Lease | None  #: held as long as parameters are views of the slab


_Key = tuple[SlabKey, Hashable]


class ResidentModels:
    """The modules of one lane, kept between jobs within a budget, least recently used out.

    Used by the lane's thread alone; `holds()` and `statistics()` may be asked from any thread.

    Invariants, which `check()` asserts:
    1. used_bytes is the sum of the entries' bytes, and at most budget_bytes unless what is in use needs more;
    2. on a CPU every parameter that no patch changed is a view of its slab, whose lease is open;
    3. elsewhere no lease is held: the device has its own copy.
    """

    def __init__(self, device: torch.device, budget_bytes: int, weights: WeightCache, *, copies: bool | None = None) -> None:
        """`copies`: keep a copy of each slab on `device` (the default but for a CPU) instead of views of the slab itself."""
        self.device = device
        self.budget_bytes = budget_bytes
        self._weights = weights
        self._copies = device.type != "cpu" if copies is None else copies
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._frames: list[set[_Key]] = []
        self._hits = self._loads = self._evictions = self._load_bytes = 0
        self._load_s = 0.0
        self._rows: tuple[ResidentRow, ...] = ()  # replaced as a whole, so that other threads may read it

    @property
    def used_bytes(self) -> int:
        """Bytes of everything that is resident."""
        return sum(row.nbytes for row in self._rows)

    def module(
        self,
        key: SlabKey,
        entries: Entries,
        build: Callable[[], nn.Module],
        name_of_model: str,
        *,
        variant: Hashable = (),
        patch: Patch | None = None,
        optional: Collection[str] = (),
    ) -> nn.Module:
        """The lane's module of `key`, brought to the device when it is not there.

        entries   what its slab is made of (see WeightCache.acquire)
        build     makes the module; called under the meta device
        variant   names what `patch` does to the weights; () is the unpatched model. Equal variants share a module.
        patch     called with each name and weight; a CPU lane keeps copies of those only for which it gives a new tensor
        optional  parameters that the file may lack without a warning

        Protected until the innermost `using()` ends; outside any, until the next call. Its tensors are never to be
        written to. Raises WeightFileInvalid, HostMemoryExhausted or OutOfDeviceMemory; nothing is kept then.
        """
        place = (key, variant)
        for frame in self._frames[-1:]:
            frame.add(place)
        found = self._entries.get(place)
        if found is not None:
            self._hits += 1
            self._entries.move_to_end(place)
            self._publish()
            return found.module
        self._loads += 1
        entry = self._load(key, entries, build, name_of_model, variant, patch, optional)
        self._entries[place] = entry
        self._publish()
        return entry.module

    def _load(
        self,
        key: SlabKey,
        entries: Entries,
        build: Callable[[], nn.Module],
        name: str,
        variant: Hashable,
        patch: Patch | None,
        optional: Collection[str],
    ) -> _Entry:
        lease = self._acquire(key, entries, name)
        began = time.monotonic()  # what the disk took is the cache's to tell
        try:
            slab = lease.slab
            self._make_room(slab.nbytes, name)
            tensors = self._copied(slab, name) if self._copies else slab.views()
            own_bytes = self._patched(tensors, patch) if variant != () and patch is not None else 0
            module, missing = build_module(build, tensors, self.device, file_name=name, optional=optional)
        except BaseException:
            lease.close()
            raise
        if self._copies:
            lease.close()
        row = ResidentRow(name, key.component, key.dtype, variant != (), slab.nbytes + own_bytes, missing)
        self._load_bytes += row.nbytes
        self._load_s += time.monotonic() - began
        return _Entry(module, row, None if self._copies else lease)

    def _acquire(self, key: SlabKey, entries: Entries, name: str) -> Lease:
        """A lease on the slab. This lane's own idle views are given up for it, the oldest first, when RAM is short."""
        while True:
            try:
                return self._weights.acquire(key, entries)
            except HostMemoryExhausted:
                victims = self._idle() if not self._copies else []
                if not victims:
                    raise
                self._evict(victims[0], name)

    def _copied(self, slab: Slab, name: str) -> dict[str, Tensor]:
        """The slab's tensors as views of one new allocation on the device, filled by one copy. Raises OutOfDeviceMemory."""
        with torch.inference_mode(False):
            flat = self._allocated(slab.nbytes, name)
            flat.copy_(slab.flat, non_blocking=slab.page_locked)
        if slab.page_locked:
            torch.cuda.current_stream(self.device).synchronize()  # the lease, and with it the source, may go after this
        return slab.views(flat)

    def _allocated(self, nbytes: int, name: str) -> Tensor:
        """(nbytes,) uint8 on the device. When the GPU is full in spite of the budget, everything idle goes first."""
        try:
            return self._empty(nbytes)
        except torch.cuda.OutOfMemoryError:
            log.warning("[%s] no room for %s (%s): dropping every model that is not in use", self.device, name, gib(nbytes))
        self.free()
        try:
            return self._empty(nbytes)
        except torch.cuda.OutOfMemoryError as error:
            resident = self.used_bytes
            raise OutOfDeviceMemory(device=str(self.device), model=name, needed_bytes=nbytes, resident_bytes=resident) from error

    def _empty(self, nbytes: int) -> Tensor:
        return torch.empty(nbytes, dtype=torch.uint8, device=self.device)

    def _patched(self, tensors: dict[str, Tensor], patch: Patch) -> int:
        """Put what `patch` makes into `tensors`; returns the bytes that came on top."""
        own_bytes = 0
        with torch.inference_mode(False), torch.no_grad():
            for name, tensor in tensors.items():
                changed = patch(name, tensor)
                if changed is tensor:
                    continue
                if self._copies and changed.shape == tensor.shape:
                    tensor.copy_(changed)  # the copy is this variant's own
                else:
                    tensors[name] = changed.to(device=tensor.device, dtype=tensor.dtype)
                    own_bytes += tensors[name].nbytes
        return own_bytes

    @contextmanager
    def using(self) -> Iterator[None]:
        """Protect what `module()` gives inside the `with` block until its end, however far over budget; then keep to it.

        The executor enters it around each node call: what a node works with stays, what earlier nodes used may go.
        """
        self._frames.append(set())
        try:
            yield
        finally:
            self._frames.pop()
            self._make_room(0, "the budget")

    def free(self) -> int:
        """Drop everything that is not in use. Returns its bytes."""
        victims = self._idle()
        freed = sum(self._entries[place].row.nbytes for place in victims)
        for place in victims:
            self._drop(place)
        return freed

    def holds(self) -> frozenset[str]:
        """The model files that something on the device comes from. Any thread may ask."""
        return frozenset(row.name for row in self._rows)

    def statistics(self) -> ResidentStatistics:
        rows = self._rows
        used = sum(row.nbytes for row in rows)
        return ResidentStatistics(self.budget_bytes, used, self._hits, self._loads, self._evictions, self._load_bytes, self._load_s, rows)

    def check(self) -> None:
        """Assert the invariants."""
        assert self._rows == tuple(entry.row for entry in self._entries.values())
        in_use = set().union(*self._frames)
        assert self.used_bytes <= self.budget_bytes or all(place in in_use for place in list(self._entries)[:-1])
        for (_, variant), entry in self._entries.items():
            assert (entry.lease is None) == self._copies
            if entry.lease is not None:
                assert not entry.lease.closed
                if variant == ():
                    _check_views(entry, entry.lease.slab)

    def _idle(self) -> list[_Key]:
        """What no `using()` protects, least recently used first."""
        in_use = set().union(*self._frames)
        return [place for place in self._entries if place not in in_use]

    def _make_room(self, nbytes: int, name: str) -> None:
        """Drop idle models until `nbytes` more fit in the budget. What is in use stays, whatever the budget says."""
        for place in self._idle():
            if self.used_bytes + nbytes <= self.budget_bytes:
                break
            self._evict(place, name)

    def _evict(self, place: _Key, name: str) -> None:
        row = self._entries[place].row
        self._evictions += 1
        log.info("[%s] dropped %s of %s (%s) to fit %s", self.device, row.component, row.name, gib(row.nbytes), name)
        self._drop(place)

    def _drop(self, place: _Key) -> None:
        entry = self._entries.pop(place)
        self._publish()
        if entry.lease is not None:
            entry.lease.close()

    def _publish(self) -> None:
        self._rows = tuple(entry.row for entry in self._entries.values())


def _check_views(entry: _Entry, slab: Slab) -> None:
    """Each parameter that the slab has lies in the slab's own memory."""
    first, end = slab.flat.data_ptr(), slab.flat.data_ptr() + slab.nbytes
    for name, parameter in entry.module.named_parameters():
        if name in slab and parameter.numel():
            assert first <= parameter.data_ptr() < end, name
