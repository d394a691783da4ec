"""What a lane may be doing, and what moves it from state to state."""

from __future__ import annotations

from enum import Enum

from comfy.errors import LaneStateError


class LaneState(Enum):
    """Where a lane is. STALLED is not kept: it is how a lane looks whose job has shown no progress for long."""

    IDLE = "idle"
    RUNNING = "running"
    PAUSING = "pausing"  #: an operator took it out; its job still runs
    PAUSED = "paused"  #: an operator took it out; jobs that name it wait
    STALLED = "stalled"  #: its job has shown no progress for `--stall-s`
    FAILED = "failed"  #: a fatal error of a GPU ended the work of the whole process
    CLOSED = "closed"  #: its thread has ended


class LaneEvent(Enum):
    """What moves a lane from state to state."""

    TAKE = "take"  #: its thread took a job
    END = "end"  #: that job is over, or waits once more
    PAUSE = "pause"
    RESUME = "resume"
    FAIL = "fail"
    CLOSE = "close"


_S, _E = LaneState, LaneEvent
_KEPT = (_S.IDLE, _S.RUNNING, _S.PAUSING, _S.PAUSED)

TRANSITIONS: dict[tuple[LaneState, LaneEvent], LaneState] = {
    (_S.IDLE, _E.TAKE): _S.RUNNING,
    (_S.IDLE, _E.PAUSE): _S.PAUSED,
    (_S.IDLE, _E.RESUME): _S.IDLE,
    (_S.RUNNING, _E.END): _S.IDLE,
    (_S.RUNNING, _E.PAUSE): _S.PAUSING,
    (_S.RUNNING, _E.RESUME): _S.RUNNING,
    (_S.PAUSING, _E.END): _S.PAUSED,
    (_S.PAUSING, _E.PAUSE): _S.PAUSING,
    (_S.PAUSING, _E.RESUME): _S.RUNNING,
    (_S.PAUSED, _E.TAKE): _S.PAUSING,  # its thread had the job in hand when the pause came
    (_S.PAUSED, _E.PAUSE): _S.PAUSED,
    (_S.PAUSED, _E.RESUME): _S.IDLE,
    **{(state, _E.FAIL): _S.FAILED for state in (*_KEPT, _S.FAILED)},
    **{(state, _E.CLOSE): _S.CLOSED for state in (*_KEPT, _S.CLOSED)},
    **{(_S.FAILED, event): _S.FAILED for event in (_E.TAKE, _E.END, _E.CLOSE)},  # its thread may still be on its way out
    (_S.CLOSED, _E.FAIL): _S.FAILED,
}

#: states in which the router may choose a lane
OPEN = frozenset({_S.IDLE.value, _S.RUNNING.value})


def step(state: LaneState, event: LaneEvent) -> LaneState:
    """The state after `event`; any pair that TRANSITIONS does not list raises LaneStateError and changes nothing."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise LaneStateError(state=state.value, event=event.value) from None
