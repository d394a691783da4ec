"""A lane: one GPU's queue, the thread that drains it, and the DeviceContext that only that thread uses.

What crosses the interface is frozen and pickles: jobs in, events out, handles not weights. So a lane can later live in
a child process behind the same six methods.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from comfy.control import JobControl
from comfy_execution.events import Event, JobEnded, JobFinishing, JobResult, JobRetried, JobStarted, Message
from comfy_execution.job import Job, JobState
from comfy_execution.lane_stats import LaneStats, TaskTotals
from comfy_execution.outbox import Outbox
from comfy_execution.queue import Closed, Nothing, PromptQueue

log = logging.getLogger(__name__)

REPORT_S = 60.0  #: a lane with new tasks reports them at least this often


class Executor(Protocol):
    """Runs one job's graph in the calling thread; never raises."""

    def execute(self, job: Job, control: JobControl) -> JobResult:
        """Run the job, publishing its messages; poll `control` to stop."""
        ...

    def reset(self) -> None:
        """Drop every cached output."""
        ...


class Device(Protocol):
    """What a lane needs of its DeviceContext."""

    @property
    def device(self) -> Any:
        """The torch.device."""
        ...

    def activate(self) -> AbstractContextManager[Any]:
        """Make it the calling thread's device for the `with` block."""
        ...

    def unload(self) -> None:
        """Drop every model that no one uses from the device."""
        ...

    def holds(self) -> frozenset[str]:
        """Names of the model files on the device."""
        ...


@dataclass(frozen=True)
class FreeFlags:
    """What `/free` asks of a lane, done before its next job."""

    unload_models: bool = False
    free_memory: bool = False  #: drop cached outputs, and unload models too


@dataclass(frozen=True)
class LaneSnapshot:
    """A lane at one moment, for `/queue/all`, the router and metrics.

    state       idle, running, or closed
    running_id  id of the job that its thread executes
    node_id     the node of that job that runs now
    since       Unix time at which that job started
    holds       names of the model files on its device
    """

    index: int
    device: str
    state: str
    running_id: str | None = None
    node_id: str | None = None
    client_id: str | None = None
    since: float | None = None
    holds: frozenset[str] = frozenset()
    totals: TaskTotals = field(default_factory=TaskTotals)


class Lane:
    """One GPU. `submit`, `stop`, `take_back`, `free`, `snapshot` and `close` may be called from any thread."""

    def __init__(
        self,
        index: int,
        ctx: Device,
        queue: PromptQueue,
        make_executor: Callable[[Callable[[Event], None]], Executor],
        publish: Callable[[Event], None],
    ) -> None:
        """`make_executor(publish)` builds the executor; it is given a publish that belongs to the running job."""
        self.index = index
        self.queue = queue
        self._ctx = ctx
        self._publish = publish
        self._outbox: Outbox | None = None
        self._executor = make_executor(self._publish_of_job)
        self._lock = threading.Lock()
        self._control: JobControl | None = None
        self._stop_early: str | None = None
        self._since: float | None = None
        self._holds: frozenset[str] = frozenset()
        self._stats = LaneStats(index)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"lane-{index}", daemon=True)

    def start(self) -> None:
        """Start the lane's thread."""
        log.info("🚀 Started worker thread for GPU %d", self.index, extra={"action": "lane_started"})
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Let a job wait here. Raises PromptIdInUse or QueueFull."""
        self.queue.put(job)

    def stop(self, prompt_id: str) -> bool:
        """Ask the running job of that id to stop; False when it does not run here, or runs no more."""
        with self._lock:
            if self._control is not None:
                if self._control.prompt_id != prompt_id:
                    return False
                self._control.stop.set()
                return True
            row = self.queue.store.row(prompt_id)
            if row is None or row.lane != self.index or row.state is not JobState.RUNNING:
                return False
            self._stop_early = prompt_id  # taken from the queue this moment, its control not yet there
            return True

    def take_back(self, prompt_id: str) -> Job | None:
        """Remove a job that waits here and return it; None when it does not wait (any more)."""
        return self.queue.take_back(prompt_id)

    def free(self, flags: FreeFlags) -> None:
        """Drop models and caches before the next job, at once when idle."""
        self.queue.put_chore(lambda: self._free(flags))

    def snapshot(self) -> LaneSnapshot:
        """What the lane does now."""
        with self._lock:
            control, since = self._control, self._since
        state = "closed" if self._closed else "idle" if control is None else "running"
        snapshot = LaneSnapshot(self.index, str(self._ctx.device), state, holds=self._holds, totals=self._stats.totals())
        if control is None:
            return snapshot
        return replace(snapshot, running_id=control.prompt_id, node_id=control.node_id, client_id=control.client_id, since=since)

    def close(self, deadline_s: float = 0.0) -> bool:
        """Take no more jobs and wait at most `deadline_s` for the running one to end; idempotent.

        Returns whether the thread has ended: code that polls nothing can outlast any deadline.
        """
        self.queue.close()
        if self._thread.ident is not None:
            self._thread.join(deadline_s)
        return not self._thread.is_alive()

    # the lane's own thread, from here on

    def _run(self) -> None:
        with self._ctx.activate():
            log.info("🔧 [GPU %d] Worker started on %s", self.index, self._ctx.device, extra={"action": "worker_started"})
            while True:
                item = self.queue.get(REPORT_S)
                if isinstance(item, Closed):
                    break
                if isinstance(item, Nothing):
                    self._stats.report_if_due(REPORT_S)
                elif isinstance(item, Job):
                    self._serve(item)
                else:
                    self._chore(item)
        self._closed = True

    def _serve(self, job: Job) -> None:
        control = JobControl(job.prompt_id, client_id=job.client_id, lane=self.index)
        started = time.time()
        with self._lock:
            self._control, self._since = control, started
            if self._stop_early == job.prompt_id:
                control.stop.set()
            self._stop_early = None
        outbox = self._outbox = Outbox(self._publish)
        self._publish(JobStarted(job.prompt_id, self.index, started))
        result = self._outcome(job, control)
        self._holds = self._ctx.holds()
        with self._lock:
            self._control = self._since = None
        if result.out_of_memory and job.attempt == 0 and not control.stop.is_set():
            self._retry(job, outbox)
            return
        self._end(job, outbox, result, started)

    def _outcome(self, job: Job, control: JobControl) -> JobResult:
        try:
            return self._executor.execute(job, control)
        except BaseException:  # the executor never raises; if it does, the lane lives on and the job says why
            log.exception("❌ [GPU %d] Prompt %s broke the executor", self.index, job.id8)
            self._executor.reset()
            data: dict[str, Any] = {"prompt_id": job.prompt_id, "node_id": None, "node_type": None, "executed": [], "traceback": []}
            data |= {"exception_type": "InternalError", "exception_message": "The executor failed; the log says why.\n"}
            data |= {"current_inputs": {}, "current_outputs": [], "timestamp": int(time.time() * 1000)}
            self._publish_of_job(Message("execution_error", data, client_id=job.client_id, prompt_id=job.prompt_id, lane=self.index))
            return JobResult(JobState.FAILED, messages=(("execution_error", data),))

    def _retry(self, job: Job, outbox: Outbox) -> None:
        log.warning("💥 [GPU %d] OOM for prompt %s, clearing cache", self.index, job.id8, extra={"action": "job_oom"})
        self._stats.count_oom()
        outbox.drop()
        self._free(FreeFlags(unload_models=True, free_memory=True))
        self._publish(JobRetried(job.prompt_id, self.index))

    def _end(self, job: Job, outbox: Outbox, result: JobResult, started: float) -> None:
        seconds = time.time() - started
        if result.state is JobState.SUCCEEDED:
            self._publish(JobFinishing(job.prompt_id, self.index))
            log.info("✅ [GPU %d] Prompt %s executed in %.2fs", self.index, job.id8, seconds, extra={"action": "job_finished"})
        else:
            log.info(
                "❌ [GPU %d] Prompt %s %s after %.2fs", self.index, job.id8, result.state.value, seconds, extra={"action": "job_ended"}
            )
        self._stats.add(
            success=result.state is JobState.SUCCEEDED,
            oom=result.out_of_memory,
            wait_s=started - job.accepted_at,
            run_s=seconds,
            waiting=self.queue.waiting(),
        )
        outbox.release()
        outbox.publish(JobEnded(job, self.index, result, seconds))

    def _publish_of_job(self, event: Event) -> None:
        outbox = self._outbox
        if outbox is not None:
            outbox.publish(event)

    def _free(self, flags: FreeFlags) -> None:
        if flags.free_memory:
            self._executor.reset()
        if flags.unload_models or flags.free_memory:
            self._ctx.unload()
        self._holds = self._ctx.holds()

    def _chore(self, chore: Callable[[], None]) -> None:
        try:
            chore()
        except Exception:
            log.exception("[GPU %d] work between two jobs failed", self.index)
