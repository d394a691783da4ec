"""All weight files in RAM, once, for every lane."""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType

from comfy.errors import HostMemoryExhausted
from comfy.units import gib
from comfy.weights.fill import fill_slab
from comfy.weights.slab import Entries, Slab, SlabKey, plan_slab, resolve

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SlabRow:
    """One slab of the table, as operators see it. `last_use` is on the cache's clock; `ready` is False while it is read."""

    file_name: str
    component: str
    dtype: str | None
    layout: str
    nbytes: int
    leases: int
    last_use: float
    pinned: bool
    page_locked: bool
    ready: bool


@dataclass(frozen=True)
class CacheStatistics:
    """The cache at one moment. `rows` are in the order in which they would be evicted; counters run since the start."""

    capacity_bytes: int
    used_bytes: int
    hits: int
    reads: int
    evictions: int
    read_bytes: int
    read_s: float
    rows: tuple[SlabRow, ...]


@dataclass(eq=False)
class _Record:
    """One key of the table. Every field but `slab`, `error` and `ready` belongs to the cache's lock."""

    key: SlabKey
    leases: int = 1  #: whoever makes the record holds it
    last_use: float = 0.0
    nbytes: int = 0  #: what it reserves of the capacity
    slab: Slab | None = None  #: written by its reader before `ready`
    error: BaseException | None = None  #: written by its reader before `ready`
    ready: threading.Event = field(default_factory=threading.Event)


class Lease:
    """The right to use one slab until `close()`. Closing twice is allowed; only the first time counts."""

    def __init__(self, slab: Slab, release: Callable[[], None]) -> None:
        self.slab = slab
        self._release: Callable[[], None] | None = release
        self._lock = threading.Lock()

    @property
    def closed(self) -> bool:
        return self._release is None

    def close(self) -> None:
        with self._lock:
            release, self._release = self._release, None
        if release is not None:
            release()

    def __enter__(self) -> Slab:
        return self.slab

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


class WeightCache:
    """The process's only copy of every weight file, shared read-only by all lanes. Safe to use from any thread.

    Invariants, which `check()` asserts where it can:
    1. a SlabKey (file identity, component, dtype, layout) has at most one Slab, its bytes never change once it is ready;
    2. the Slabs in the table, also those being read, sum to used_bytes <= capacity_bytes;
    3. a Slab with leases is never evicted, a pinned one only by `unpin()`.
    With capacity 0 the table keeps nothing after the last lease, and 2 does not hold while there are leases.
    """

    def __init__(
        self,
        capacity_bytes: int,
        *,
        fill: Callable[[Slab], None] = fill_slab,
        on_filled: Callable[[Slab], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`fill` reads a slab's bytes; `on_filled` sees each slab once, read and not yet lent."""
        self.capacity_bytes = capacity_bytes
        self._fill, self._on_filled, self._clock = fill, on_filled, clock
        #: starts to lock a new slab's pages for CUDA and returns how to wait for that; None where there is no CUDA
        self.lock_pages: Callable[[Slab], Callable[[], None]] | None = None
        self._lock = threading.Lock()
        self._table: OrderedDict[SlabKey, _Record] = OrderedDict()  # least recently used first
        self._pinned: set[SlabKey] = set()
        self._used_bytes = self._hits = self._reads = self._evictions = self._read_bytes = 0
        self._read_s = 0.0

    @contextmanager
    def lease(self, key: SlabKey, entries: Entries) -> Iterator[Slab]:
        """`acquire()` for the length of a `with` block."""
        with self.acquire(key, entries) as slab:
            yield slab

    def acquire(self, key: SlabKey, entries: Entries) -> Lease:
        """Hold the Slab of `key` in RAM until the lease is closed, reading it on a miss; waits while another thread reads it.

        `entries` says what the slab is made of; it is asked on a miss only. Raises HostMemoryExhausted when dropping every
        unleased Slab would not make room, or what the read raised, in every thread that waited for it.
        """
        while True:
            record, mine = self._enter(key)
            if mine:
                self._read(record, entries)
            record.ready.wait()
            if record.slab is not None:
                return Lease(record.slab, lambda record=record: self._leave(record))  # type: ignore[misc]
            if isinstance(record.error, Exception):
                raise record.error if mine else _copy(record.error)
            # its reader was stopped, by an interrupt of its own job: that is no answer for this one, so ask again

    def _enter(self, key: SlabKey) -> tuple[_Record, bool]:
        """A lease on the record of `key`, and whether the caller has to read it."""
        with self._lock:
            record = self._table.get(key)
            if record is None:
                record = self._table[key] = _Record(key, last_use=self._clock())
                self._reads += 1
                return record, True
            record.leases += 1
            self._hits += 1
            self._touch(record)
            return record, False

    def _read(self, record: _Record, entries: Entries) -> None:
        """Plan, make room for and fill the record's slab. Wakes the waiters whatever happens."""
        try:
            slab = self._filled(record, entries)
        except BaseException as error:
            record.error = error
            with self._lock:
                self._forget(record)
            if not isinstance(error, Exception):
                raise
        else:
            record.slab = slab
        finally:
            record.ready.set()

    def _filled(self, record: _Record, entries: Entries) -> Slab:
        began = time.monotonic()
        plan = plan_slab(record.key, resolve(entries))
        with self._lock:
            victims = self._reserve(record, plan.nbytes)
        del victims  # their memory goes back here, outside the lock
        slab = Slab(record.key, plan)
        locked = self.lock_pages(slab) if self.lock_pages is not None else None
        try:
            self._fill(slab)
        finally:
            if locked is not None:
                locked()  # it ran beside the read; nobody waits for it on a later request
        if self._on_filled is not None:
            self._on_filled(slab)
        took = time.monotonic() - began
        with self._lock:
            self._read_bytes += slab.nbytes
            self._read_s += took
        log.info("read %s of %s (%s) in %.2fs", record.key.component, record.key.file.name, gib(slab.nbytes), took)
        return slab

    def _leave(self, record: _Record) -> None:
        with self._lock:
            record.leases -= 1
            self._touch(record)
            if self.capacity_bytes == 0 and self._droppable(record):
                self._forget(record)

    def _touch(self, record: _Record) -> None:
        record.last_use = self._clock()
        if self._table.get(record.key) is record:
            self._table.move_to_end(record.key)

    def _droppable(self, record: _Record) -> bool:
        return record.leases == 0 and record.key not in self._pinned

    def _reserve(self, record: _Record, nbytes: int) -> list[_Record]:
        """Take `nbytes` of the capacity for `record`, dropping the least recently used slabs when there is not enough left.

        Returns what was dropped.
        """
        victims: list[_Record] = []
        if self.capacity_bytes > 0:
            free = self.capacity_bytes - self._used_bytes
            for other in self._table.values():
                if free >= nbytes:
                    break
                if self._droppable(other):
                    victims.append(other)
                    free += other.nbytes
            if free < nbytes:
                raise HostMemoryExhausted(
                    file=record.key.file.name, needed_bytes=nbytes, free_bytes=free, capacity_bytes=self.capacity_bytes
                )
            for victim in victims:
                self._forget(victim)
                self._evictions += 1
        record.nbytes = nbytes
        self._used_bytes += nbytes
        return victims

    def _forget(self, record: _Record) -> None:
        """Take the record out of the table; its memory goes when the last view of it does."""
        if self._table.get(record.key) is record:
            del self._table[record.key]
            self._used_bytes -= record.nbytes

    def pin(self, key: SlabKey) -> None:
        """Keep the slab of `key` in RAM from now on, also one that is read later."""
        with self._lock:
            self._pinned.add(key)

    def unpin(self, key: SlabKey) -> None:
        """Let the slab of `key` be evicted again. Does nothing when it is not pinned."""
        with self._lock:
            self._pinned.discard(key)
            record = self._table.get(key)
            if record is not None and self.capacity_bytes == 0 and self._droppable(record):
                self._forget(record)

    def drop_unleased(self) -> int:
        """Drop every slab that is neither leased nor pinned. Returns their bytes."""
        with self._lock:
            victims = [record for record in self._table.values() if self._droppable(record)]
            for record in victims:
                self._forget(record)
            return sum(record.nbytes for record in victims)

    def slab_keys(self) -> tuple[SlabKey, ...]:
        """Every key in the table, least recently used first."""
        with self._lock:
            return tuple(self._table)

    def statistics(self) -> CacheStatistics:
        with self._lock:
            rows = tuple(self._row(record) for record in self._table.values())
            return CacheStatistics(
                self.capacity_bytes, self._used_bytes, self._hits, self._reads, self._evictions, self._read_bytes, self._read_s, rows
            )

    def _row(self, record: _Record) -> SlabRow:
        key = record.key
        return SlabRow(
            file_name=key.file.name,
            component=key.component,
            dtype=key.dtype,
            layout=key.layout,
            nbytes=record.nbytes,
            leases=record.leases,
            last_use=record.last_use,
            pinned=key in self._pinned,
            page_locked=record.slab is not None and record.slab.page_locked,
            ready=record.slab is not None,
        )

    def check(self) -> None:
        """Assert the invariants."""
        with self._lock:
            records = list(self._table.items())
            assert self._used_bytes == sum(record.nbytes for _, record in records)
            assert self.capacity_bytes == 0 or self._used_bytes <= self.capacity_bytes
            for key, record in records:
                assert record.key == key
                assert record.leases >= 0
                assert record.leases > 0 or record.ready.is_set(), "a slab being read is held by its reader"
                assert record.slab is None or record.slab.nbytes == record.nbytes
                if self.capacity_bytes == 0:
                    assert not self._droppable(record), "capacity 0 keeps nothing"


def _copy(error: Exception) -> Exception:
    """The same error for another thread: one object raised twice would mix their tracebacks."""
    try:
        twin = copy.copy(error)
    except Exception:  # a foreign error with a constructor of its own
        return error
    twin.__cause__ = error
    return twin
