"""A lane: one GPU's queue, the thread that drains it, and the DeviceContext that only that thread uses.

What crosses the interface is frozen and pickles: jobs in, events out, handles not weights. So a lane can later live in
a child process behind the same methods.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from comfy.control import JobControl
from comfy.device import faults
from comfy_execution.events import Event, JobEnded, JobFinishing, JobResult, JobRetried, JobStarted, LaneFailed, Message
from comfy_execution.job import Job, JobState
from comfy_execution.lane_state import LaneEvent, LaneState, step
from comfy_execution.lane_stats import LaneStats, NodeClock
from comfy_execution.lane_types import Device, Executor, FreeFlags, LaneSnapshot
from comfy_execution.outbox import Outbox
from comfy_execution.queue import Closed, Nothing, PromptQueue
from comfy_execution.reports import error_outside_nodes

log = logging.getLogger(__name__)

REPORT_S = 60.0  #: a lane with new tasks reports them at least this often
FAILURES_IN_A_ROW = 3  #: after so many the lane gets a new executor


class Lane:
    """One GPU. `submit`, `stop`, `take_back`, `free`, `pause`, `fail`, `snapshot` and `close` may be called from any thread."""

    def __init__(
        self,
        index: int,
        ctx: Device,
        queue: PromptQueue,
        make_executor: Callable[[Callable[[Event], None]], Executor],
        publish: Callable[[Event], None],
        *,
        stall_s: float = 600.0,
        fault_of: Callable[[object], str | None] = faults.fault_of,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`make_executor(publish)` builds the executor; it is given a publish that belongs to the running job.

        stall_s   a job that shows no progress for so long makes the lane look stalled
        fault_of  asks the device, after a job failed on it, whether it still works
        """
        self.index = index
        self.queue = queue
        self._ctx = ctx
        self._publish = publish
        self._outbox: Outbox | None = None
        self._make_executor = make_executor
        self._executor = make_executor(self._publish_of_job)
        self._stall_s, self._fault_of, self._clock = stall_s, fault_of, clock
        self._lock = threading.Lock()
        self._control: JobControl | None = None
        self._stop_early: str | None = None
        self._since: float | None = None
        self._holds: frozenset[str] = frozenset()
        self._stats = LaneStats(index)
        self._state = LaneState.IDLE
        self._moved_at = 0.0  # by the clock: when the running job last showed progress
        self._node_clock: NodeClock | None = None
        self._failures = 0  # in a row
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

    def pause(self, paused: bool) -> None:
        """Take no more jobs once the running one is over, or go on; idempotent. Raises LaneStateError when the lane has failed or ended."""
        self._step(LaneEvent.PAUSE if paused else LaneEvent.RESUME)
        self.queue.hold(paused)

    def fail(self) -> None:
        """A GPU of the process works no more: take no more jobs, for good."""
        self._step(LaneEvent.FAIL)
        self.queue.close()

    def snapshot(self) -> LaneSnapshot:
        """What the lane does now."""
        with self._lock:
            control, since, state, moved_at = self._control, self._since, self._state, self._moved_at
        snapshot = LaneSnapshot(self.index, str(self._ctx.device), state.value, holds=self._holds, figures=self._stats.figures())
        if control is None:
            return snapshot
        quiet_s = max(0.0, self._clock() - moved_at)
        if quiet_s > self._stall_s and state in (LaneState.RUNNING, LaneState.PAUSING):
            snapshot = replace(snapshot, state=LaneState.STALLED.value)
        told = replace(snapshot, running_id=control.prompt_id, node_id=control.node_id, client_id=control.client_id)
        return replace(told, since=since, quiet_s=quiet_s)

    def _step(self, event: LaneEvent) -> None:
        with self._lock:
            self._state = step(self._state, event)

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
        self._step(LaneEvent.CLOSE)

    def _serve(self, job: Job) -> None:
        control = JobControl(job.prompt_id, client_id=job.client_id, lane=self.index)
        started = time.time()
        self._node_clock = NodeClock(job)
        with self._lock:
            self._control, self._since, self._moved_at = control, started, self._clock()
            self._state = step(self._state, LaneEvent.TAKE)
            if self._stop_early == job.prompt_id:
                control.stop.set()
            self._stop_early = None
        outbox = self._outbox = Outbox(self._publish)
        self._publish(JobStarted(job.prompt_id, self.index, started))
        result = self._outcome(job, control)
        fatal = self._fatal(result)
        self._holds = self._ctx.holds()
        self._stats.add_nodes(self._node_clock)
        with self._lock:
            self._control = self._since = None
            self._state = step(self._state, LaneEvent.END)
        if fatal is not None:
            self._end(job, outbox, result, started)
            self._publish(LaneFailed(self.index, fatal))
            return
        if result.out_of_memory and job.attempt == 0 and not control.stop.is_set():
            self._retry(job, outbox)
            return
        self._end(job, outbox, result, started)
        self._rebuild_if_due(result)

    def _fatal(self, result: JobResult) -> str | None:
        """What the GPU said, when it works no more. Code of a pack may have hidden it behind an error of its own."""
        if result.fatal is not None or result.state is not JobState.FAILED:
            return result.fatal
        return self._fault_of(self._ctx.device)

    def _rebuild_if_due(self, result: JobResult) -> None:
        """After some failures in a row begin afresh: what nodes keep between jobs may be what makes them fail."""
        self._failures = self._failures + 1 if result.state is JobState.FAILED else 0
        if self._failures < FAILURES_IN_A_ROW:
            return
        self._failures = 0
        log.warning(
            "🔁 [GPU %d] %d prompts in a row failed: it gets a new executor",
            self.index,
            FAILURES_IN_A_ROW,
            extra={"action": "executor_rebuilt"},
        )
        self._executor.reset()
        self._executor = self._make_executor(self._publish_of_job)
        self._stats.count_rebuild()

    def _outcome(self, job: Job, control: JobControl) -> JobResult:
        try:
            return self._executor.execute(job, control)
        except BaseException as error:  # the executor never raises; if it does, the lane lives on and the job says why
            log.exception("❌ [GPU %d] Prompt %s broke the executor", self.index, job.id8)
            self._executor.reset()
            data = error_outside_nodes(job.prompt_id, "InternalError", "The executor failed; the log says why.\n")
            self._publish_of_job(Message("execution_error", data, client_id=job.client_id, prompt_id=job.prompt_id, lane=self.index))
            return JobResult(JobState.FAILED, messages=(("execution_error", data),), fatal=faults.fatal_reason(error))

    def _retry(self, job: Job, outbox: Outbox) -> None:
        log.warning("💥 [GPU %d] OOM for prompt %s, clearing cache", self.index, job.id8, extra={"action": "job_oom"})
        self._stats.count_retry()
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
            state=result.state,
            oom=result.out_of_memory,
            wait_s=started - job.accepted_at,
            run_s=seconds,
            waiting=self.queue.waiting(),
        )
        outbox.release()
        outbox.publish(JobEnded(job, self.index, result, seconds))

    def _publish_of_job(self, event: Event) -> None:
        self._moved_at = self._clock()
        if isinstance(event, Message) and self._node_clock is not None:
            self._node_clock.see(event.name, event.data)
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
        except Exception as error:
            log.exception("[GPU %d] work between two jobs failed", self.index)
            fatal = faults.fatal_reason(error)
            if fatal is not None:
                self._publish(LaneFailed(self.index, fatal))
