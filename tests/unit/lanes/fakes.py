"""Doubles for the lane's neighbours: a device without memory, and an executor that does what each job's prompt says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from comfy.control import JobControl, entered
from comfy.errors import Interrupted
from comfy_execution.events import Event, JobResult, Message
from comfy_execution.job import Job, JobState
from comfy_execution.lane import Lane
from comfy_execution.queue import MemoryJobStore, PromptQueue
from comfy_execution.scheduler import Scheduler
from comfy_execution.validation import ValidPrompt


class FakeDevice:
    """A device that remembers what was asked of it."""

    def __init__(self, name: str = "cpu") -> None:
        self.device = name
        self.names: frozenset[str] = frozenset()
        self.unloads = 0

    @contextmanager
    def activate(self) -> Iterator[FakeDevice]:
        yield self

    def unload(self) -> None:
        self.unloads += 1
        self.names = frozenset()

    def holds(self) -> frozenset[str]:
        return self.names


@dataclass
class Script:
    """What every FakeExecutor of a test shares: gates that jobs wait at, and what ran where in which order."""

    gates: dict[str, threading.Event] = field(default_factory=dict)
    started: dict[str, threading.Event] = field(default_factory=dict)
    ran: list[tuple[str, int]] = field(default_factory=list)
    #: lane -> what its device says when it is asked whether it works
    faults: dict[int, str] = field(default_factory=dict)

    def gate(self, prompt_id: str) -> threading.Event:
        self.started[prompt_id] = threading.Event()
        return self.gates.setdefault(prompt_id, threading.Event())


class FakeExecutor:
    """Runs a job by its prompt's `do`: ok, fail, raise, fatal, hidden, oom (first attempt only), or steps until stopped.

    fatal   the executor tells of a GPU that works no more
    hidden  it fails, and says nothing of the reason: the device has to be asked
    """

    def __init__(self, lane: int, script: Script, publish: Callable[[Event], None]) -> None:
        self.lane, self.script, self.publish, self.resets = lane, script, publish, 0

    def execute(self, job: Job, control: JobControl) -> JobResult:
        self.script.ran.append((job.prompt_id, self.lane))
        do = job.prompt.get("do", "ok")
        self._tell("execution_start", job)
        if job.prompt_id in self.script.gates:
            self.script.started[job.prompt_id].set()
            assert self.script.gates[job.prompt_id].wait(20)
        with entered(control):
            try:
                control.check()
            except Interrupted:
                return self._end("execution_interrupted", job, JobState.INTERRUPTED)
        if do == "raise":
            raise SystemExit("out of the executor")
        if do == "fatal":
            result = self._end("execution_error", job, JobState.FAILED)
            return JobResult(result.state, messages=result.messages, fatal="CUDA error 700: an illegal memory access was encountered")
        if do == "hidden":
            self.script.faults[self.lane] = "CUDA error 719: unspecified launch failure"
        if do in ("fail", "hidden") or (do == "oom" and job.attempt == 0) or do == "oom always":
            result = self._end("execution_error", job, JobState.FAILED)
            return JobResult(result.state, messages=result.messages, out_of_memory=do.startswith("oom"))
        return self._end("execution_success", job, JobState.SUCCEEDED)

    def reset(self) -> None:
        self.resets += 1

    def _tell(self, name: str, job: Job) -> None:
        self.publish(Message(name, {"prompt_id": job.prompt_id}, client_id=job.client_id, prompt_id=job.prompt_id, lane=self.lane))

    def _end(self, name: str, job: Job, state: JobState) -> JobResult:
        self._tell(name, job)
        return JobResult(state, messages=((name, {"prompt_id": job.prompt_id}),))


class House:
    """A scheduler over fake lanes; `with house:` starts and closes it."""

    def __init__(self, n_lanes: int = 2, capacity: int = 100, saved: Any = None, **scheduler: Any) -> None:
        self.script, self.saved = Script(), saved
        self.store = MemoryJobStore()
        self.now = 0.0  #: what the lanes' clocks say
        self.scheduler = Scheduler(self.store, multi_gpu=True, **scheduler)
        self.devices = [FakeDevice() for _ in range(n_lanes)]
        self.executors: list[FakeExecutor] = []
        self.events: list[Event] = []
        self._changed = threading.Condition()
        self.scheduler.set_sink(self._sink)
        for index in range(n_lanes):
            queue = PromptQueue(index, self.store, capacity)
            publish, fault_of = self.scheduler.handle, self._fault_of(index)
            lane = Lane(index, self.devices[index], queue, self._executor_of(index), publish, fault_of=fault_of, clock=lambda: self.now)
            self.scheduler.add_lane(lane)

    def __enter__(self) -> House:
        self.scheduler.start(self.saved)
        return self

    def __exit__(self, *exc: object) -> None:
        for gate in self.script.gates.values():
            gate.set()
        self.scheduler.close(20, self.saved)

    def send(self, prompt_id: str, do: str = "ok", *, target: int | None = None, gated: bool = False, **extra: Any) -> int:
        if gated:
            self.script.gate(prompt_id)
        valid = ValidPrompt(prompt={"do": do, **extra.pop("nodes", {})}, outputs=("1",), node_errors={})
        number = extra.pop("number", None)
        number = self.scheduler.next_number() if number is None else number
        _, lane = self.scheduler.submit(prompt_id=prompt_id, number=number, valid=valid, extra_data=extra, target=target)
        return lane

    def wait_started(self, prompt_id: str) -> None:
        assert self.script.started[prompt_id].wait(20), f"{prompt_id} never started"

    def open(self, prompt_id: str) -> None:
        self.script.gates[prompt_id].set()

    def wait_ended(self, *prompt_ids: str) -> None:
        def all_ended() -> bool:
            ended = {event.data["prompt_id"] for event in self.messages("executing")}
            return ended.issuperset(prompt_ids)

        with self._changed:
            assert self._changed.wait_for(all_ended, 20), f"not all of {prompt_ids} ended"

    def messages(self, *names: str) -> list[Message]:
        return [event for event in self.events if isinstance(event, Message) and (not names or event.name in names)]

    def _fault_of(self, index: int) -> Callable[[object], str | None]:
        return lambda device: self.script.faults.get(index)

    def _executor_of(self, index: int) -> Callable[[Callable[[Event], None]], FakeExecutor]:
        def make(publish: Callable[[Event], None]) -> FakeExecutor:
            self.executors.append(FakeExecutor(index, self.script, publish))
            return self.executors[-1]

        return make

    def _sink(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()
