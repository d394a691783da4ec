"""A job: one accepted prompt, and the states that it goes through."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from comfy.errors import JobStateError

#: keys of `extra_data` that only the job's nodes may see: never in /queue, /history, logs, PNG or queue.json
SECRET_KEYS = ("auth_token_comfy_org", "api_key_comfy_org")


class JobState(Enum):
    """Where a job is in its life."""

    QUEUED = "queued"  #: accepted; waits in exactly one lane's queue
    RUNNING = "running"  #: a lane's thread executes its graph
    FINISHING = "finishing"  #: its files are being written; the lane already works on
    SUCCEEDED = "succeeded"  #: every requested output was made
    FAILED = "failed"  #: a node raised; the history says what
    INTERRUPTED = "interrupted"  #: stopped on request, waiting or running


class JobEvent(Enum):
    """What moves a job from state to state."""

    START = "start"
    FINISH = "finish"
    SAVED = "saved"
    FAIL = "fail"
    STOP = "stop"
    RETRY = "retry"
    MOVE = "move"


TRANSITIONS: dict[tuple[JobState, JobEvent], JobState] = {
    (JobState.QUEUED, JobEvent.START): JobState.RUNNING,
    (JobState.QUEUED, JobEvent.STOP): JobState.INTERRUPTED,
    (JobState.QUEUED, JobEvent.MOVE): JobState.QUEUED,
    (JobState.RUNNING, JobEvent.FINISH): JobState.FINISHING,
    (JobState.RUNNING, JobEvent.FAIL): JobState.FAILED,
    (JobState.RUNNING, JobEvent.STOP): JobState.INTERRUPTED,
    (JobState.RUNNING, JobEvent.RETRY): JobState.QUEUED,  # attempt + 1
    (JobState.FINISHING, JobEvent.SAVED): JobState.SUCCEEDED,
    (JobState.FINISHING, JobEvent.FAIL): JobState.FAILED,
}

ENDED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.INTERRUPTED})


def step(state: JobState, event: JobEvent) -> JobState:
    """The state after `event`; any pair that TRANSITIONS does not list raises JobStateError and changes nothing."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise JobStateError(state=state.value, event=event.value) from None


@dataclass(frozen=True)
class Job:
    """One accepted prompt: JSON values only, so that it can cross to another process or be written to disk.

    prompt      node id -> {"class_type", "inputs"}, after the literals were converted; never changed by anyone:
                an executor works on its own copy
    outputs     ids of the output nodes to run, sorted
    extra_data  as the client sent it, with its client_id, without the SECRET_KEYS
    secrets     the SECRET_KEYS that the client sent
    number      the smaller runs first; ties by prompt_id
    pinned      the lane that the client named, or None when the router chose
    attempt     0, and one more for each RETRY
    """

    prompt_id: str
    number: float
    prompt: Mapping[str, Any]
    outputs: tuple[str, ...]
    extra_data: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    pinned: int | None = None
    attempt: int = 0
    accepted_at: float = field(default_factory=time.time)

    @property
    def client_id(self) -> str | None:
        """The websocket session that owns the job's events, or None for an anonymous job."""
        return self.extra_data.get("client_id")

    @property
    def id8(self) -> str:
        """The first eight characters of the id, as log lines show it."""
        return self.prompt_id[:8]

    def as_list(self) -> list[Any]:
        """The job as `/queue` and `/history` show it (contract: http-api.md section 4)."""
        return [self.number, self.prompt_id, self.prompt, self.extra_data, list(self.outputs)]
