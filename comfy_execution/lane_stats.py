"""What a lane has done: totals for metrics, and the 📊 line of the log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

log = logging.getLogger(__name__)

REPORT_TASKS = 10


@dataclass(frozen=True)
class TaskTotals:
    """Sums over the jobs that ended since the start. Times in seconds; `queued` sums the jobs that waited at each end."""

    tasks: int = 0
    succeeded: int = 0
    ooms: int = 0
    queued: int = 0
    wait_s: float = 0.0
    run_s: float = 0.0


class LaneStats:
    """Counts a lane's jobs and logs a line every REPORT_TASKS of them. `totals()` may be called from any thread."""

    def __init__(self, index: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._index = index
        self._clock = clock
        self._lock = threading.Lock()
        self._totals = self._reported = TaskTotals()
        self._reported_at = clock()

    def totals(self) -> TaskTotals:
        """Sums since the start."""
        with self._lock:
            return self._totals

    def add(self, *, success: bool, oom: bool, wait_s: float, run_s: float, waiting: int) -> None:
        """Count a job that ended."""
        with self._lock:
            old = self._totals
            self._totals = TaskTotals(
                tasks=old.tasks + 1,
                succeeded=old.succeeded + success,
                ooms=old.ooms + oom,
                queued=old.queued + waiting,
                wait_s=old.wait_s + max(wait_s, 0.0),
                run_s=old.run_s + run_s,
            )
            due = self._totals.tasks - self._reported.tasks >= REPORT_TASKS
        if due:
            self._report()

    def count_oom(self) -> None:
        """Count an out-of-memory whose job is tried again."""
        with self._lock:
            self._totals = replace(self._totals, ooms=self._totals.ooms + 1)

    def report_if_due(self, after_s: float) -> None:
        """Log the line when jobs ended since the last one and `after_s` seconds have passed."""
        with self._lock:
            due = self._totals.tasks > self._reported.tasks and self._clock() - self._reported_at >= after_s
        if due:
            self._report()

    def _report(self) -> None:
        with self._lock:
            now, last = self._totals, self._reported
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
