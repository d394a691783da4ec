"""What a lane needs of its neighbours, and what it shows of itself."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from comfy.control import JobControl
from comfy_execution.events import JobResult
from comfy_execution.job import Job
from comfy_execution.lane_stats import LaneFigures, TaskTotals


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

    state       the value of a LaneState
    running_id  id of the job that its thread executes
    node_id     the node of that job that runs now
    since       Unix time at which that job started
    quiet_s     seconds since that job last showed progress
    holds       names of the model files on its device
    """

    index: int
    device: str
    state: str
    running_id: str | None = None
    node_id: str | None = None
    client_id: str | None = None
    since: float | None = None
    quiet_s: float = 0.0
    holds: frozenset[str] = frozenset()
    figures: LaneFigures = field(default_factory=LaneFigures)

    @property
    def totals(self) -> TaskTotals:
        """Sums over the jobs that ended."""
        return self.figures.totals
