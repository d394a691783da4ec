"""What the scheduler shows of its lanes and jobs: frozen, at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from comfy_execution.lane_types import LaneSnapshot
from comfy_execution.queue import JobRow


@dataclass(frozen=True)
class QueueView:
    """Jobs at one moment, in running order."""

    running: list[JobRow]
    pending: list[JobRow]


@dataclass(frozen=True)
class LaneView:
    """A lane at one moment, with its jobs where they were asked for (else the two lists are empty).

    auto   listed in COMFY_AUTO_GPUS
    takes  the router may choose it now: listed, and neither paused, stalled, failed nor closed
    """

    lane: LaneSnapshot
    running: list[JobRow]
    pending: list[JobRow]
    running_count: int
    pending_count: int
    auto: bool
    takes: bool


@dataclass(frozen=True)
class RunningView:
    """A running job, for a client that comes back."""

    prompt_id: str
    node_id: str | None
    lane: int
