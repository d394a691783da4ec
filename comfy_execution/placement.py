"""Which lane a job waits on: where it goes when it comes, and when it moves on. The caller sees to it that one thread at a time places."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from comfy.errors import JobStateError
from comfy_execution.lane import Lane
from comfy_execution.lane_state import OPEN
from comfy_execution.queue import LIVE, WAITING, JobRow, JobStore
from comfy_execution.router import LaneLoad, choose_lane, wanted_models

log = logging.getLogger(__name__)


class Placement:
    """Places the jobs that no client pinned. `lanes` is the scheduler's own list, which grows until the start."""

    def __init__(self, lanes: Sequence[Lane], store: JobStore, auto_lanes: Sequence[int] | None) -> None:
        """`auto_lanes`: those that the router may choose; None for all."""
        self._lanes = lanes
        self._store = store
        self._auto = None if auto_lanes is None else frozenset(auto_lanes)

    def is_auto(self, lane: Lane) -> bool:
        """Whether the router may ever choose the lane."""
        return self._auto is None or lane.index in self._auto

    def takes(self, lane: Lane) -> bool:
        """Whether the router may choose the lane now: neither paused, stalled, failed nor closed."""
        return self.is_auto(lane) and lane.snapshot().state in OPEN

    def choose(self, prompt: Mapping[str, Any]) -> int:
        """The router's choice: among lanes that take jobs; without one, among those that will again."""
        takes = self.takes if self.any_takes() else self.is_auto
        loads = [LaneLoad(lane.index, self._store.count(LIVE, lane.index), lane.snapshot().holds, takes(lane)) for lane in self._lanes]
        return choose_lane(loads, wanted_models(prompt))

    def any_takes(self) -> bool:
        """Whether a job would find a lane that works on it."""
        return any(map(self.takes, self._lanes))

    def empty(self, lane: Lane) -> None:
        """Put the lane's waiting jobs where the router would; they stay when no lane takes jobs."""
        for row in self._store.rows(WAITING, lane.index):
            if row.job.pinned is None and self.any_takes():
                self._move(row, self.choose(row.job.prompt))

    def feed(self, idle: Lane) -> None:
        """Give a lane that ran dry the next job of the longest queue that has one."""
        if self._store.count(LIVE, idle.index) or not self.takes(idle):
            return
        for busy in sorted(self._lanes, key=lambda lane: -lane.queue.waiting()):
            rows = self._store.rows(WAITING, busy.index) if busy is not idle else []
            row = next((row for row in rows if row.job.pinned is None), None)
            if row is not None:
                self._move(row, idle.index)
                return

    def _move(self, row: JobRow, lane: int) -> None:
        with contextlib.suppress(JobStateError):  # its lane was quicker
            self._lanes[lane].queue.adopt(row.prompt_id)
            log.info("Moving prompt %s from GPU %d to GPU %d", row.job.id8, row.lane, lane, extra={"action": "job_moved"})
