"""The jobs that are not over: a JobStore for the whole process, and a PromptQueue per lane that stands on it."""

from __future__ import annotations

import heapq
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Protocol

from comfy import jsonio
from comfy.errors import JobStateError, PromptIdInUse, QueueFull
from comfy_execution.job import ENDED, Job, JobEvent, JobState, step

LIVE = frozenset(JobState) - ENDED
RUNNING = frozenset({JobState.RUNNING, JobState.FINISHING})
WAITING = frozenset({JobState.QUEUED})


@dataclass(frozen=True)
class JobRow:
    """One live job at one moment.

    json   `job.as_list()` as JSON, made once when the job was accepted: `/queue` joins these
    since  Unix time of the last change of state
    """

    job: Job
    lane: int
    state: JobState
    json: bytes
    since: float

    @property
    def prompt_id(self) -> str:
        """The job's id."""
        return self.job.prompt_id


class JobStore(Protocol):
    """Every live job of the process. Thread-safe; an implementation may keep them on disk."""

    def add(self, job: Job, lane: int, capacity: int) -> JobRow:
        """Take a job in as QUEUED on `lane`. Raises PromptIdInUse, or QueueFull when `capacity` jobs wait there."""
        ...

    def take(self, lane: int) -> Job | None:
        """The waiting job of `lane` with the smallest (number, prompt_id), now RUNNING; None when nothing waits."""
        ...

    def advance(self, prompt_id: str, event: JobEvent) -> JobRow:
        """Apply `event`; a job whose new state is final is forgotten. Raises JobStateError, also for an unknown id."""
        ...

    def withdraw(self, prompt_id: str, lane: int) -> Job | None:
        """Forget the job if it waits on `lane` and return it; None, and nothing changed, otherwise."""
        ...

    def move(self, prompt_id: str, lane: int) -> JobRow:
        """Put a waiting job on another lane. Raises JobStateError when it does not wait."""
        ...

    def row(self, prompt_id: str) -> JobRow | None:
        """The live job of that id."""
        ...

    def rows(self, states: Collection[JobState], lane: int | None = None) -> list[JobRow]:
        """Live jobs in those states, in running order: by number, then prompt_id."""
        ...

    def count(self, states: Collection[JobState], lane: int | None = None) -> int:
        """How many `rows()` would give; does not sort."""
        ...


class MemoryJobStore:
    """A JobStore in memory: a SIGKILL loses it.

    Invariants, which `check()` asserts:
    1. every QUEUED row has exactly one valid heap entry, on its lane; all other entries are stale and skipped;
    2. `_counts` says how many rows each (lane, state) has.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._rows: dict[str, JobRow] = {}
        self._counts: Counter[tuple[int, JobState]] = Counter()
        self._heaps: dict[int, list[tuple[float, str, int]]] = {}
        self._entry: dict[str, int] = {}  # prompt_id -> serial of its valid heap entry
        self._serial = 0

    def add(self, job: Job, lane: int, capacity: int) -> JobRow:
        row = JobRow(job, lane, JobState.QUEUED, jsonio.dump_bytes(job.as_list()), self._clock())
        with self._lock:
            if job.prompt_id in self._rows:
                raise PromptIdInUse(prompt_id=job.prompt_id)
            if self._counts[lane, JobState.QUEUED] >= capacity:
                raise QueueFull(lane=lane, capacity=capacity)
            self._put(row)
        return row

    def take(self, lane: int) -> Job | None:
        with self._lock:
            heap = self._heaps.get(lane, [])
            while heap:
                _, prompt_id, serial = heapq.heappop(heap)
                if self._entry.get(prompt_id) == serial:
                    return self._step(prompt_id, JobEvent.START).job
        return None

    def advance(self, prompt_id: str, event: JobEvent) -> JobRow:
        with self._lock:
            return self._step(prompt_id, event)

    def withdraw(self, prompt_id: str, lane: int) -> Job | None:
        with self._lock:
            row = self._rows.get(prompt_id)
            if row is None or row.lane != lane or row.state is not JobState.QUEUED:
                return None
            return self._step(prompt_id, JobEvent.STOP).job

    def move(self, prompt_id: str, lane: int) -> JobRow:
        with self._lock:
            return self._step(prompt_id, JobEvent.MOVE, lane)

    def row(self, prompt_id: str) -> JobRow | None:
        with self._lock:
            return self._rows.get(prompt_id)

    def rows(self, states: Collection[JobState], lane: int | None = None) -> list[JobRow]:
        with self._lock:
            found = [row for row in self._rows.values() if row.state in states and lane in (None, row.lane)]
        return sorted(found, key=lambda row: (row.job.number, row.job.prompt_id))

    def count(self, states: Collection[JobState], lane: int | None = None) -> int:
        with self._lock:
            return sum(n for (where, state), n in self._counts.items() if state in states and lane in (None, where))

    def check(self) -> None:
        """Assert the invariants of the class."""
        with self._lock:
            assert Counter((row.lane, row.state) for row in self._rows.values()) == +self._counts
            valid = Counter(
                prompt_id for heap in self._heaps.values() for _, prompt_id, serial in heap if self._entry.get(prompt_id) == serial
            )
            assert valid == Counter(row.prompt_id for row in self._rows.values() if row.state is JobState.QUEUED)

    def _step(self, prompt_id: str, event: JobEvent, lane: int | None = None) -> JobRow:
        old = self._rows.get(prompt_id)
        if old is None:
            raise JobStateError("No live job has this id.", prompt_id=prompt_id, event=event.value)
        state = step(old.state, event)
        job = replace(old.job, attempt=old.job.attempt + 1) if event is JobEvent.RETRY else old.job
        row = replace(old, job=job, lane=old.lane if lane is None else lane, state=state, since=self._clock())
        self._counts[old.lane, old.state] -= 1
        del self._rows[prompt_id]
        self._entry.pop(prompt_id, None)
        if state not in ENDED:
            self._put(row)
        return row

    def _put(self, row: JobRow) -> None:
        self._rows[row.prompt_id] = row
        self._counts[row.lane, row.state] += 1
        if row.state is JobState.QUEUED:
            self._serial += 1
            self._entry[row.prompt_id] = self._serial
            heapq.heappush(self._heaps.setdefault(row.lane, []), (row.job.number, row.prompt_id, self._serial))


#: work of the lane's own thread between two jobs: dropping caches, bringing a model
Chore = Callable[[], None]


class Closed:
    """What `PromptQueue.get` gives when the queue was closed: jobs may still wait in the store."""


class Nothing:
    """What `PromptQueue.get` gives when its time ran out."""


class PromptQueue:
    """The jobs of one lane. Any thread puts; only the lane's thread gets."""

    def __init__(self, lane: int, store: JobStore, capacity: int = 10_000) -> None:
        self.lane = lane
        self.store = store
        self.capacity = capacity
        self._changed = threading.Condition()
        self._version = 0
        self._chores: list[Chore] = []
        self._closed = self._held = False

    def put(self, job: Job) -> JobRow:
        """Let a job wait here. Raises PromptIdInUse or QueueFull."""
        row = self.store.add(job, self.lane, self.capacity)
        self._wake()
        return row

    def adopt(self, prompt_id: str) -> JobRow:
        """Take over a job that waits on another lane. Raises JobStateError when it does not wait any more."""
        row = self.store.move(prompt_id, self.lane)
        self._wake()
        return row

    def put_chore(self, chore: Chore) -> None:
        """Have the lane's thread call `chore` before its next job, at once when it is idle."""
        with self._changed:
            self._chores.append(chore)
        self._wake()

    def take_back(self, prompt_id: str) -> Job | None:
        """Remove a job that waits here; None when it does not (any more)."""
        return self.store.withdraw(prompt_id, self.lane)

    def get(self, timeout_s: float | None = None) -> Job | Chore | Closed | Nothing:
        """Wait for a chore or a job; chores first. A job is RUNNING from here on."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            with self._changed:
                seen = self._version
                if self._closed:
                    return Closed()
                if self._chores:
                    return self._chores.pop(0)
                held = self._held
            job = None if held else self.store.take(self.lane)
            if job is not None:
                return job
            with self._changed:
                if self._version != seen:
                    continue
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    return Nothing()
                self._changed.wait(left)

    def waiting(self) -> int:
        """How many jobs wait here."""
        return self.store.count(WAITING, self.lane)

    def hold(self, held: bool) -> None:
        """Give no jobs, chores only, until called with False. A `get` under way may still give one."""
        with self._changed:
            self._held = held
        self._wake()

    def close(self) -> None:
        """Give no more jobs; idempotent. Waiting jobs stay in the store."""
        with self._changed:
            self._closed = True
        self._wake()

    def _wake(self) -> None:
        with self._changed:
            self._version += 1
            self._changed.notify_all()
