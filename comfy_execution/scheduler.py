"""All lanes as one: takes accepted prompts in, picks their lane, keeps history, and passes every event on in order."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from comfy.errors import DeviceFailed, JobStateError, LaneUnknown, NotReady, PromptIdInUse, ShuttingDown
from comfy_execution import saved_queue
from comfy_execution.events import Audience, Event, JobEnded, JobFinishing, JobResult, JobRetried, JobStarted, LaneFailed, Message
from comfy_execution.failures import FATAL_TIPS
from comfy_execution.history import History
from comfy_execution.job import SECRET_KEYS, Job, JobEvent, JobState
from comfy_execution.lane import Lane
from comfy_execution.lane_state import OPEN
from comfy_execution.lane_types import FreeFlags
from comfy_execution.placement import Placement
from comfy_execution.queue import LIVE, RUNNING, WAITING, JobRow, JobStore
from comfy_execution.reports import error_outside_nodes
from comfy_execution.validation import ValidPrompt
from comfy_execution.views import LaneView, QueueView, RunningView

log = logging.getLogger(__name__)

STOP_GRACE_S = 5.0  #: what a stopped job gets to reach its next check

_OUTCOME = {JobState.SUCCEEDED: JobEvent.SAVED, JobState.FAILED: JobEvent.FAIL, JobState.INTERRUPTED: JobEvent.STOP}


class Scheduler:
    """The lanes of the process. Any thread may call it; it never waits for a lane, but in `close`."""

    def __init__(
        self,
        store: JobStore,
        *,
        multi_gpu: bool = False,
        default_target: int | None = None,
        auto_lanes: Sequence[int] | None = None,
        history: History | None = None,
    ) -> None:
        """Give it its lanes by `add_lane` before `start`. `auto_lanes`: those that the router may choose; None for all."""
        self.store = store
        self.multi_gpu = multi_gpu
        self.history = history or History()
        self.accepting = False
        #: what a GPU said that works no more: the process has to end
        self.failed: str | None = None
        self._closing = False
        self._default_target = default_target
        self._lanes: list[Lane] = []
        self._placement = Placement(self._lanes, store, auto_lanes)
        self._sink: Callable[[Event], None] = lambda event: None
        self._on_failed: Callable[[str], None] = lambda reason: None
        self._saved: Path | None = None
        self._succeeded_late: set[str] = set()
        self._number_lock = threading.Lock()
        self._number = 0
        self._in_order = threading.Lock()
        self._saving = threading.Lock()

    # building and ending

    def set_sink(self, sink: Callable[[Event], None]) -> None:
        """Have every message passed to `sink`, from any thread, each job's in order."""
        self._sink = sink

    def on_failed(self, call: Callable[[str], None]) -> None:
        """Have `call(reason)` called once, in any thread, when a GPU works no more and the process has to end."""
        self._on_failed = call

    def add_lane(self, lane: Lane) -> None:
        """Add the next lane; its index must be its place."""
        assert lane.index == len(self._lanes)
        self._lanes.append(lane)

    def start(self, saved: Path | None = None) -> int:
        """Start all lanes and take up the jobs that the last stop saved. Returns how many those were."""
        self._saved = saved
        jobs = saved_queue.load(saved) if saved is not None else []
        for lane_index, job in jobs:
            lane = lane_index if lane_index < len(self._lanes) else 0
            if lane != lane_index:
                log.warning("prompt %s waited for GPU %d, which is gone; it goes to GPU %d", job.id8, lane_index, lane)
            try:
                self._lanes[lane].submit(job)
            except PromptIdInUse:
                log.warning("the saved queue names prompt %s twice; the second is dropped", job.id8)
        if jobs:
            self._number = max(0, int(max(job.number for _, job in jobs)) + 1)
            log.info("took up %d waiting prompts from %s", len(jobs), saved)
        if saved is not None:
            saved.unlink(missing_ok=True)
        for lane_object in self._lanes:
            lane_object.start()
        self.accepting = True
        return len(jobs)

    def drain(self) -> None:
        """From now on take no prompt and start no job; what runs goes on. `close` does the rest."""
        self._closing, self.accepting = True, False
        for lane in self._lanes:
            lane.queue.close()

    def close(self, deadline_s: float, saved: Path | None = None) -> bool:
        """Take no more prompts, let running jobs finish within the deadline, and write the waiting ones to `saved`.

        A job that outlasts the deadline is stopped, written too, and runs again at the next start.
        Returns whether every lane's thread ended. Waits; call it off the event loop.
        """
        self.drain()
        self._save(saved, [])  # at once: a supervisor may lose its patience
        until = time.monotonic() + deadline_s
        for lane in self._lanes:
            lane.close(max(0.0, until - time.monotonic()))
        late = self.store.rows((JobState.RUNNING,))
        for row in late:
            log.warning("[GPU %d] prompt %s did not finish within %gs; it is stopped and kept", row.lane, row.job.id8, deadline_s)
            self._lanes[row.lane].stop(row.prompt_id)
        ended = [lane.close(STOP_GRACE_S if late else 1.0) for lane in self._lanes]  # every one, whatever the first says
        self._save(saved, [row for row in late if row.prompt_id not in self._succeeded_late])
        return all(ended)

    def _save(self, path: Path | None, unfinished: list[JobRow]) -> None:
        if path is None:
            return
        with self._saving:
            rows = sorted(self.store.rows(WAITING) + unfinished, key=lambda row: (row.job.number, row.prompt_id))
            if saved_queue.save(path, rows):
                log.info("wrote %d waiting prompts to %s", len(rows), path)

    # prompts in

    @property
    def all_lanes(self) -> tuple[Lane, ...]:
        """The lanes in order."""
        return tuple(self._lanes)

    @property
    def n_lanes(self) -> int:
        """How many lanes there are."""
        return len(self._lanes)

    @property
    def number(self) -> int:
        """The number that the next prompt without one will get."""
        return self._number

    @number.setter
    def number(self, value: int) -> None:
        with self._number_lock:
            self._number = value

    def next_number(self) -> int:
        """Count one submission, also one that will be refused, and return its number: 0, 1, 2 …"""
        with self._number_lock:
            self._number += 1
            return self._number - 1

    def submit(
        self, *, prompt_id: str, number: float, valid: ValidPrompt, extra_data: Mapping[str, Any], target: int | None
    ) -> tuple[Job, int]:
        """Queue a valid prompt on lane `target`, or on the router's choice. Returns the job and its lane.

        Raises PromptIdInUse, QueueFull, ShuttingDown, DeviceFailed, or NotReady before `start`.
        """
        if self.failed is not None:
            raise DeviceFailed(reason=self.failed)
        if not self.accepting:
            raise ShuttingDown() if self._closing else NotReady()
        if prompt_id in self.history:
            raise PromptIdInUse(prompt_id=prompt_id)
        secrets = {key: str(extra_data[key]) for key in SECRET_KEYS if extra_data.get(key) is not None}
        shown = {key: value for key, value in extra_data.items() if key not in SECRET_KEYS}
        pinned = self._default_target if target is None else target
        job = Job(prompt_id, number, valid.prompt, tuple(valid.outputs), shown, secrets, pinned)
        with self._in_order:  # two prompts at once see each other's jobs, and the lane's first words come after this status
            lane = self._placement.choose(valid.prompt) if pinned is None else pinned
            self._lanes[lane].submit(job)
            self._status()
        if self.multi_gpu:
            log.info("Routing prompt %s to GPU %d", job.id8, lane, extra={"action": "job_routed"})
        return job, lane

    # what is asked of jobs and lanes

    def queue(self, lane: int | None = None) -> QueueView:
        """The live jobs of one lane or of all."""
        return QueueView(self.store.rows(RUNNING, lane), self.store.rows(WAITING, lane))

    def lanes(self, *, jobs: bool = False) -> list[LaneView]:
        """Every lane; with `jobs` also its jobs, which are sorted for that: 10,000 of them take a while."""
        by_lane: dict[int, QueueView] = {lane.index: QueueView([], []) for lane in self._lanes}
        for row in self.store.rows(LIVE) if jobs else ():
            view = by_lane[row.lane]
            (view.pending if row.state is JobState.QUEUED else view.running).append(row)
        return [
            LaneView(
                lane=lane.snapshot(),
                running=by_lane[lane.index].running,
                pending=by_lane[lane.index].pending,
                running_count=len(by_lane[lane.index].running) if jobs else self.store.count(RUNNING, lane.index),
                pending_count=len(by_lane[lane.index].pending) if jobs else self.store.count(WAITING, lane.index),
                auto=self._placement.is_auto(lane),
                takes=self._placement.takes(lane),
            )
            for lane in self._lanes
        ]

    def pause(self, index: int, paused: bool) -> None:
        """Take a lane out: it ends its job, waiting jobs that no client pinned move on, the router avoids it; or bring it back.

        Raises LaneUnknown, and LaneStateError when the lane has failed or ended.
        """
        if not 0 <= index < len(self._lanes):
            raise LaneUnknown(given=index, valid=f"0-{len(self._lanes) - 1}")
        lane = self._lanes[index]
        with self._in_order:  # no prompt is routed meanwhile
            lane.pause(paused)
            if paused:
                self._placement.empty(lane)
            elif self.accepting:
                self._placement.feed(lane)
        log.info("%s [GPU %d] %s", *(("⏸️", index, "paused") if paused else ("▶️", index, "runs again")), extra={"action": "lane_paused"})

    def remaining(self, lane: int | None = None) -> int:
        """How many jobs wait, run or finish."""
        return self.store.count(LIVE, lane)

    def clear(self, lane: int | None = None) -> int:
        """Remove every waiting job of one lane or of all. Returns how many."""
        return self._withdraw(self.store.rows(WAITING, lane))

    def delete(self, prompt_ids: Iterable[str], lane: int | None = None) -> int:
        """Remove those of the jobs that wait (on `lane`, when given); others are ignored. Returns how many."""
        rows = [self.store.row(prompt_id) for prompt_id in dict.fromkeys(prompt_ids)]
        return self._withdraw([row for row in rows if row is not None and lane in (None, row.lane)])

    def _withdraw(self, rows: Iterable[JobRow]) -> int:
        count = sum(self._lanes[row.lane].take_back(row.prompt_id) is not None for row in rows)
        if count:
            self._send_status()
        return count

    def interrupt(self, prompt_id: str | None = None, lane: int | None = None) -> list[str]:
        """Ask running jobs to stop: that one, that lane's, or all. Returns the ids told to; waiting jobs stay.

        A FINISHING job is past stopping: its pictures are made and being written.
        """
        rows = self.store.rows((JobState.RUNNING,), lane)
        return [row.prompt_id for row in rows if prompt_id in (None, row.prompt_id) and self._lanes[row.lane].stop(row.prompt_id)]

    def free(self, lane: int | None = None, *, unload_models: bool = False, free_memory: bool = False) -> None:
        """Have one lane or all drop models or caches before their next job."""
        flags = FreeFlags(unload_models, free_memory)
        for one in self._lanes:
            if lane in (None, one.index) and flags != FreeFlags():
                one.free(flags)

    def running_of(self, client_id: str | None) -> list[RunningView]:
        """The running jobs of one client; of None, the anonymous ones."""
        snapshots = [lane.snapshot() for lane in self._lanes]
        return [
            RunningView(shot.running_id, shot.node_id, shot.index)
            for shot in snapshots
            if shot.running_id is not None and shot.client_id == client_id
        ]

    # what lanes publish

    def handle(self, event: Event) -> None:
        """The `publish` of every lane: record what changed, then pass on what clients see, in the contract's order."""
        if isinstance(event, JobStarted):
            self._send_status()
        elif isinstance(event, JobFinishing):
            self._advance(event.prompt_id, JobEvent.FINISH)
        elif isinstance(event, JobRetried):
            self._retried(event)
        elif isinstance(event, JobEnded):
            self._ended(event)
        elif isinstance(event, LaneFailed):
            self.fail(event.lane, event.reason)
        else:
            self._sink(event)

    def _advance(self, prompt_id: str, event: JobEvent) -> bool:
        """Apply `event`; False for a job that `fail` has ended already. Raises JobStateError when that is not why it cannot be done."""
        try:
            self.store.advance(prompt_id, event)
        except JobStateError:
            if self.failed is None:
                raise
            return False
        return True

    def _retried(self, event: JobRetried) -> None:
        lane = self._lanes[event.lane]
        with self._in_order:
            if self._advance(event.prompt_id, JobEvent.RETRY) and lane.snapshot().state not in OPEN:
                self._placement.empty(lane)

    def _ended(self, event: JobEnded) -> None:
        job, result = event.job, event.result
        self.history.put(job, result, event.lane if self.multi_gpu else None)
        if result.state is JobState.SUCCEEDED and not self.accepting:
            self._succeeded_late.add(job.prompt_id)
        if self._advance(job.prompt_id, _OUTCOME[result.state]):
            self._tell_end(job, event.lane)
            with self._in_order:
                if self.accepting:
                    self._placement.feed(self._lanes[event.lane])

    def _tell_end(self, job: Job, lane: int) -> None:
        self._send_status()
        data = {"node": None, "prompt_id": job.prompt_id}
        self._sink(Message("executing", data, Audience.OWNER, job.client_id, job.prompt_id, lane))

    def fail(self, lane: int, reason: str) -> None:
        """A GPU works no more, and with it no lane: end running jobs with the reason, keep the waiting ones, ask for the process's end.

        Any thread; the first call counts.
        """
        with self._number_lock:
            if self.failed is not None:
                return
            self.failed, self.accepting = reason, False
        for one in self._lanes:
            one.fail()
        log.critical("💥 [GPU %d] failed for good: %s. The server ends; waiting prompts are kept", lane, reason, extra={"action": "fatal"})
        try:
            self._save(self._saved, [])  # first: nobody knows how long the process has
            for row in self.store.rows((JobState.RUNNING,)):
                self._fail_job(row, f"[GPU {lane}] {reason}\n{FATAL_TIPS}")
            self._save(self._saved, [])  # with a job that was about to be tried once more
        finally:
            self._on_failed(reason)  # whatever the disk says

    def _fail_job(self, row: JobRow, message: str) -> None:
        """End a job in its lane's stead: its thread may never come back."""
        job = row.job
        if not self._advance(job.prompt_id, JobEvent.FAIL):
            return
        data = error_outside_nodes(job.prompt_id, DeviceFailed.__name__, message)
        result = JobResult(JobState.FAILED, messages=(("execution_error", data),))
        self.history.put(job, result, row.lane if self.multi_gpu else None)
        self._sink(Message("execution_error", data, Audience.OWNER, job.client_id, job.prompt_id, row.lane))
        self._tell_end(job, row.lane)

    def _send_status(self) -> None:
        with self._in_order:  # the last status to be sent tells the last count; the sink never waits
            self._status()

    def _status(self) -> None:
        data = {"status": {"exec_info": {"queue_remaining": self.remaining()}}}
        self._sink(Message("status", data, Audience.ALL))
