"""The frozen messages that a lane publishes. Everything here pickles, so that a lane may live in another process.

A lane is given `publish(event)`; whoever gave it (the Scheduler) records history, advances the job and passes the
messages on to the server's websockets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from comfy_execution.job import Job, JobState


class Audience(Enum):
    """Who gets a message of a job (contract: websocket.md section 2)."""

    OWNER = "owner"  #: the job's client; nobody when the job is anonymous
    OWNER_OR_ALL = "owner or all"  #: the job's client; everybody when the job is anonymous
    ALL = "all"


@dataclass(frozen=True)
class Message:
    """A JSON message for websockets: {"type": name, "data": data}."""

    name: str
    data: Mapping[str, Any]
    audience: Audience = Audience.OWNER
    client_id: str | None = None
    prompt_id: str | None = None
    lane: int | None = None


@dataclass(frozen=True)
class PreviewImage:
    """A preview as encoded bytes; the server sends it in the form that the client negotiated (websocket.md section 5)."""

    image: bytes = field(repr=False)
    image_type: str  #: image/jpeg or image/png
    node_id: str
    display_node_id: str
    parent_node_id: str | None
    real_node_id: str
    prompt_id: str
    client_id: str | None
    lane: int


@dataclass(frozen=True)
class BinaryMessage:
    """A binary frame of a custom node: `kind` is the first big-endian 32-bit integer."""

    kind: int
    payload: bytes = field(repr=False)
    client_id: str | None = None


@dataclass(frozen=True)
class JobStarted:
    """A lane took the job from its queue (QUEUED -> RUNNING)."""

    prompt_id: str
    lane: int
    at: float


@dataclass(frozen=True)
class JobResult:
    """What became of one job, as history keeps it (contract: execution.md section 17).

    state     SUCCEEDED, FAILED or INTERRUPTED
    outputs   node id -> ui dict
    meta      node id -> {"node_id", "display_node", "parent_node", "real_node_id"}
    messages  (event name, data) pairs: execution_start, execution_cached, then how it ended
    out_of_memory  the GPU's memory ran out: the lane may free its caches and try once more
    fatal     what a GPU said that works no more, and with it no lane of the process
    """

    state: JobState
    outputs: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    messages: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    out_of_memory: bool = False
    fatal: str | None = None

    @property
    def status(self) -> dict[str, Any]:
        """The `status` member of the history record."""
        completed = self.state is JobState.SUCCEEDED
        return {
            "status_str": "success" if completed else "error",
            "completed": completed,
            "messages": [[name, data] for name, data in self.messages],
        }


@dataclass(frozen=True)
class JobFinishing:
    """The job's graph is done (RUNNING -> FINISHING); its files may still be on their way to disk."""

    prompt_id: str
    lane: int


@dataclass(frozen=True)
class JobRetried:
    """The job failed for want of memory and waits on its lane once more (RUNNING -> QUEUED, attempt + 1)."""

    prompt_id: str
    lane: int


@dataclass(frozen=True)
class JobEnded:
    """The job is over and its files are on disk. Every message of the job was published before this."""

    job: Job
    lane: int
    result: JobResult
    seconds: float


@dataclass(frozen=True)
class LaneFailed:
    """A GPU works no more: every lane of the process is lost (comfy/device/faults.py)."""

    lane: int
    reason: str


Event = Message | PreviewImage | BinaryMessage | JobStarted | JobFinishing | JobRetried | JobEnded | LaneFailed
