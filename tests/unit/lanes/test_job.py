from __future__ import annotations

import itertools
import pickle

import pytest

from comfy.errors import JobStateError
from comfy_execution.events import (
    Audience,
    BinaryMessage,
    JobEnded,
    JobFinishing,
    JobResult,
    JobRetried,
    JobStarted,
    Message,
    PreviewImage,
)
from comfy_execution.job import ENDED, TRANSITIONS, Job, JobEvent, JobState, step
from comfy_execution.lane_stats import LaneFigures, TaskTotals
from comfy_execution.lane_types import FreeFlags, LaneSnapshot

JOB = Job("id", 1.0, {"1": {"class_type": "A", "inputs": {}}}, ("1",), {"client_id": "c"}, {"api_key_comfy_org": "k"}, 1)
RESULT = JobResult(JobState.FAILED, {"1": {"images": []}}, {"1": {}}, (("execution_error", {"prompt_id": "id"}),), True)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(JobState, JobEvent)))
def test_a_pair_that_the_table_lacks_raises(state: JobState, event: JobEvent) -> None:
    if (state, event) in TRANSITIONS:
        assert step(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(JobStateError) as raised:
            step(state, event)
        assert raised.value.facts == {"state": state.value, "event": event.value}


def test_nothing_leaves_a_final_state() -> None:
    assert not [pair for pair in TRANSITIONS if pair[0] in ENDED]


@pytest.mark.parametrize(
    "thing",
    [
        JOB,
        RESULT,
        FreeFlags(True, False),
        LaneSnapshot(0, "cuda:0", "idle", holds=frozenset({"a.safetensors"}), figures=LaneFigures(TaskTotals(tasks=1))),
        Message("executing", {"node": None}, Audience.ALL, "c", "id", 0),
        PreviewImage(b"jpeg", "image/jpeg", "1", "1", None, "1", "id", "c", 0),
        BinaryMessage(3, b"text", None),
        JobStarted("id", 0, 1.0),
        JobFinishing("id", 0),
        JobRetried("id", 0),
        JobEnded(JOB, 0, RESULT, 1.5),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_what_crosses_the_lanes_interface_pickles(thing: object) -> None:
    assert pickle.loads(pickle.dumps(thing)) == thing


def test_the_job_that_clients_see_holds_no_secret() -> None:
    assert "k" not in str(JOB.as_list())
