"""What a lane has done: totals, times and histograms for metrics, and the 📊 line of the log."""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from comfy_execution.job import Job, JobState

log = logging.getLogger(__name__)

REPORT_TASKS = 10


@dataclass(frozen=True)
class TaskTotals:
    """Sums over the jobs that ended since the start. Times in seconds; `queued` sums the jobs that waited at each end.

    ooms      times that the GPU's memory ran out
    retries   jobs that were tried once more after that
    rebuilds  times that failures in a row gave the lane a new executor
    """

    tasks: int = 0
    succeeded: int = 0
    failed: int = 0
    interrupted: int = 0
    ooms: int = 0
    retries: int = 0
    rebuilds: int = 0
    queued: int = 0
    wait_s: float = 0.0
    run_s: float = 0.0


@dataclass(frozen=True)
class Histogram:
    """How many times lay in each interval.

    counts  `counts[i]`: up to `BOUNDS[i]` seconds and above the bound before; the last: all longer ones
    """

    BOUNDS: ClassVar[tuple[float, ...]] = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    sum_s: float = 0.0

    def plus(self, seconds: float) -> Histogram:
        """The same with one more time."""
        at = bisect_left(self.BOUNDS, seconds)
        counts = tuple(count + (index == at) for index, count in enumerate(self.counts))
        return Histogram(counts, self.sum_s + seconds)


@dataclass(frozen=True)
class NodeTime:
    """How often nodes of one class were started, and the seconds that they took together."""

    calls: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class LaneFigures:
    """Everything that a lane counts, at one moment. `nodes` by class; `cached_nodes` had their results from before."""

    totals: TaskTotals = field(default_factory=TaskTotals)
    waits: Histogram = field(default_factory=Histogram)
    runs: Histogram = field(default_factory=Histogram)
    nodes: Mapping[str, NodeTime] = field(default_factory=dict)
    cached_nodes: int = 0


class NodeClock:
    """Times the nodes of one job by its messages: a node's time lasts until the next one starts or the job ends.

    Nodes that an expansion added count for the node that expanded, so there are no more names than the prompt has classes.
    """

    def __init__(self, job: Job, clock: Callable[[], float] = time.monotonic) -> None:
        self._prompt = job.prompt
        self._clock = clock
        self._at: str | None = None
        self._since = 0.0
        self.nodes: dict[str, NodeTime] = {}
        self.cached = 0

    def see(self, name: str, data: Mapping[str, Any]) -> None:
        """Take note of a message of the job; called by the lane's thread."""
        if name == "executing":
            self.stop()
            node = self._prompt.get(str(data.get("display_node")))
            class_type = node.get("class_type") if isinstance(node, Mapping) else None
            self._at, self._since = class_type, self._clock()
        elif name == "execution_cached":
            self.cached += len(data.get("nodes", ()))

    def stop(self) -> None:
        """No node runs any more."""
        if self._at is not None:
            old = self.nodes.get(self._at, NodeTime())
            self.nodes[self._at] = NodeTime(old.calls + 1, old.seconds + self._clock() - self._since)
        self._at = None


class LaneStats:
    """Counts a lane's jobs and logs a line every REPORT_TASKS of them. `figures()` may be called from any thread."""

    def __init__(self, index: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._index = index
        self._clock = clock
        self._lock = threading.Lock()
        self._figures = LaneFigures()  # replaced as a whole, so that other threads may keep what they read
        self._reported = TaskTotals()
        self._reported_at = clock()

    def figures(self) -> LaneFigures:
        """Everything since the start."""
        with self._lock:
            return self._figures

    def totals(self) -> TaskTotals:
        """Sums since the start."""
        return self.figures().totals

    def add(self, *, state: JobState, oom: bool, wait_s: float, run_s: float, waiting: int) -> None:
        """Count a job that ended as `state`."""
        wait_s = max(wait_s, 0.0)
        with self._lock:
            old = self._figures.totals
            totals = replace(
                old,
                tasks=old.tasks + 1,
                succeeded=old.succeeded + (state is JobState.SUCCEEDED),
                failed=old.failed + (state is JobState.FAILED),
                interrupted=old.interrupted + (state is JobState.INTERRUPTED),
                ooms=old.ooms + oom,
                queued=old.queued + waiting,
                wait_s=old.wait_s + wait_s,
                run_s=old.run_s + run_s,
            )
            self._figures = replace(
                self._figures, totals=totals, waits=self._figures.waits.plus(wait_s), runs=self._figures.runs.plus(run_s)
            )
            due = totals.tasks - self._reported.tasks >= REPORT_TASKS
        if due:
            self._report()

    def add_nodes(self, clock: NodeClock) -> None:
        """Count the nodes of a job that is over, or will be tried once more."""
        clock.stop()
        with self._lock:
            nodes = dict(self._figures.nodes)
            for name, time_of in clock.nodes.items():
                old = nodes.get(name, NodeTime())
                nodes[name] = NodeTime(old.calls + time_of.calls, old.seconds + time_of.seconds)
            self._figures = replace(self._figures, nodes=nodes, cached_nodes=self._figures.cached_nodes + clock.cached)

    def count_retry(self) -> None:
        """Count an out-of-memory whose job is tried again."""
        with self._lock:
            old = self._figures.totals
            self._figures = replace(self._figures, totals=replace(old, ooms=old.ooms + 1, retries=old.retries + 1))

    def count_rebuild(self) -> None:
        """Count a new executor."""
        with self._lock:
            old = self._figures.totals
            self._figures = replace(self._figures, totals=replace(old, rebuilds=old.rebuilds + 1))

    def report_if_due(self, after_s: float) -> None:
        """Log the line when jobs ended since the last one and `after_s` seconds have passed."""
        with self._lock:
            due = self._figures.totals.tasks > self._reported.tasks and self._clock() - self._reported_at >= after_s
        if due:
            self._report()

    def _report(self) -> None:
        with self._lock:
            now, last = self._figures.totals, self._reported
            self._reported, self._reported_at = now, self._clock()
        n = now.tasks - last.tasks
        log.info(
            "📊 [GPU %d] tasks=%d, success=%.1f%%, queue=%.1f, wait=%.0fms, exec=%.0fms, oom=%d",
            self._index,
            now.tasks,
            100 * (now.succeeded - last.succeeded) / n,
            (now.queued - last.queued) / n,
            1000 * (now.wait_s - last.wait_s) / n,
            1000 * (now.run_s - last.run_s) / n,
            now.ooms,
            extra={"action": "lane_report"},
        )
