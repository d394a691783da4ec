"""The orders of the contract (websocket.md section 4), message by message."""

from __future__ import annotations

import pickle

import pytest

from comfy_execution.events import Audience, Message, PreviewImage
from comfy_execution.job import JobState
from tests.unit.execution.harness import Bench, node

TWO_OUTPUTS = {"1": node("Const", n=3), "2": node("Show", value=["1", 0]), "3": node("Show", value=["1", 0], extra="x")}


def test_4_1_nothing_cached() -> None:
    prompt = {**TWO_OUTPUTS, "3": node("Show", value=["4", 0]), "4": node("Const", n=5)}
    ran = Bench().run(prompt)
    assert ran.short == [
        *("execution_start", "execution_cached []", "PS{1:r}", "executing 1", "PS{1:f}"),
        *("PS{1:f, 2:r}", "executing 2", "executed 2", "PS{1:f, 2:f}"),
        *("PS{1:f, 2:f, 4:r}", "executing 4", "PS{1:f, 2:f, 4:f}"),
        *("PS{1:f, 2:f, 4:f, 3:r}", "executing 3", "executed 3", "PS{1:f, 2:f, 4:f, 3:f}"),
        "execution_success",
    ]
    start = ran.of("progress_state")[0]["nodes"]["1"]
    assert start == {
        "value": 0.0,
        "max": 1.0,
        "state": "running",
        "node_id": "1",
        "prompt_id": "job",
        "display_node_id": "1",
        "parent_node_id": None,
        "real_node_id": "1",
    }
    assert isinstance(start["value"], float)
    assert ran.of("progress_state")[1]["nodes"]["1"]["value"] == 1.0
    assert ran.of("executing")[0] == {"node": "1", "display_node": "1", "prompt_id": "job"}
    assert ran.of("executed")[0] == {"node": "2", "display_node": "2", "output": {"text": [3]}, "prompt_id": "job"}
    assert set(ran.of("execution_success")[0]) == {"prompt_id", "timestamp"}
    assert isinstance(ran.of("execution_start")[0]["timestamp"], int)
    assert ran.control.node_id is None


def test_4_2_all_cached() -> None:
    bench = Bench()
    bench.run(TWO_OUTPUTS)
    ran = bench.run(TWO_OUTPUTS)
    assert ran.short == [
        *("execution_start", "execution_cached ['1', '2', '3']"),
        *("executed 2", "PS{2:f}", "executed 3", "PS{2:f, 3:f}", "execution_success"),
    ]
    entry = ran.of("progress_state")[0]["nodes"]["2"]
    assert (entry["value"], entry["max"], type(entry["value"])) == (1, 1, int)
    assert ran.result.outputs == {"2": {"text": [3]}, "3": {"text": [3]}}


@pytest.mark.parametrize("preview", [False, True])
def test_4_3_progress(preview: bool) -> None:
    ran = Bench().run({"1": node("Steps", steps=2, stop_at=0, preview=preview), "2": node("Silent", value=["1", 0])})
    image = ["preview 1"] if preview else []
    assert ran.short == [
        *("execution_start", "execution_cached []", "PS{1:r}", "executing 1"),
        *("PS{1:r}", *image, "progress 1 1/2", "PS{1:r}", *image, "progress 1 2/2"),
        *("PS{1:f}", "PS{1:f, 2:r}", "executing 2", "PS{1:f, 2:f}", "execution_success"),
    ]
    assert [(s["nodes"]["1"]["value"], s["nodes"]["1"]["max"]) for s in ran.of("progress_state")[:4]] == [(0, 1), (1, 2), (2, 2), (2, 2)]
    assert ran.of("progress")[0] == {"value": 1, "max": 2, "prompt_id": "job", "node": "1"}


def test_a_preview_is_scaled_to_its_square_and_says_whose_it_is() -> None:
    import io

    from PIL import Image

    ran = Bench(lane=2).run({"1": node("Steps", steps=1, stop_at=0, preview=True), "2": node("Silent", value=["1", 0])})
    (preview,) = (event for event in ran.events if isinstance(event, PreviewImage))
    assert Image.open(io.BytesIO(preview.image)).size == (16, 8)
    assert (preview.image_type, preview.node_id, preview.real_node_id, preview.parent_node_id) == ("image/jpeg", "1", "1", None)
    assert (preview.prompt_id, preview.client_id, preview.lane) == ("job", "client", 2)


def test_4_4_an_error_with_the_node_before_it_cached() -> None:
    bench = Bench()
    prompt = {"1": node("Const", n=3), "2": node("Fail", value=["1", 0], text="no")}
    bench.run({"1": prompt["1"], "3": node("Show", value=["1", 0])})
    ran = bench.run({**prompt, "3": node("Show", value=["1", 0])}, "2", "3")
    assert ran.short == ["execution_start", "execution_cached ['1', '3']", "PS{2:r}", "executing 2", "execution_error"]
    error = dict(ran.error)
    assert error.pop("traceback")
    assert isinstance(error.pop("timestamp"), int)
    assert error == {
        "prompt_id": "job",
        "node_id": "2",
        "node_type": "Fail",
        "executed": [],
        "exception_message": "no\n",
        "exception_type": "ValueError",
        "current_inputs": {"value": [3], "text": ["no"]},
        "current_outputs": ["1", "2", "3"],
    }
    assert ran.result.state is JobState.FAILED
    assert ran.result.outputs == {"3": {"text": [3]}}  # not run, but stored


def test_4_5_an_interrupt_takes_effect_at_the_next_progress_report() -> None:
    from tests.unit.execution import nodes

    ran = Bench().run({"1": node("Steps", steps=200, stop_at=9, preview=False), "2": node("Show", value=["1", 0])})
    assert ran.short[-4:] == ["progress 1 7/200", "PS{1:r}", "progress 1 8/200", "execution_interrupted"]
    assert nodes.Steps.done == list(range(1, 10))
    data = dict(ran.of("execution_interrupted")[0])
    assert isinstance(data.pop("timestamp"), int)
    assert data == {"prompt_id": "job", "node_id": "1", "node_type": "Steps", "executed": []}
    assert ran.result.state is JobState.INTERRUPTED
    assert ran.result.status["status_str"] == "error"
    assert ran.result.status["completed"] is False
    assert [name for name, _ in ran.result.messages] == ["execution_start", "execution_cached", "execution_interrupted"]


def test_4_6_a_lazy_input() -> None:  # hard case 3
    prompt = {
        "1": node("Const", n=1),
        "2": node("Const", n=2),
        "3": node("LazyInTurn", second=False, a=["1", 0], b=["2", 0]),
        "4": node("Show", value=["3", 0]),
    }
    ran = Bench().run(prompt)
    assert [line for line in ran.short if line.startswith("exec")] == [
        *("execution_start", "execution_cached []", "executing 3", "executing 1", "executing 3", "executing 2", "executing 3"),
        *("executing 4", "executed 4", "execution_success"),
    ]
    assert ran.short[2:9] == ["PS{3:r}", "executing 3", "PS{3:r, 1:r}", "executing 1", "PS{3:r, 1:f}", "PS{3:r, 1:f}", "executing 3"]
    assert ran.result.outputs["4"] == {"text": [12]}


def test_4_6_an_expansion() -> None:
    ran = Bench().run({"1": node("Expand", value=5, n=3), "2": node("Show", value=["1", 0])})
    assert ran.short == [
        *("execution_start", "execution_cached []", "PS{1:r}", "executing 1", "executed 1"),
        *("PS{1:r, 1.0.0.1:r}", "executing 1.0.0.1", "PS{1:r, 1.0.0.1:f}"),
        *("PS{1:r, 1.0.0.1:f, 1.0.0.2:r}", "executing 1.0.0.2", "PS{1:r, 1.0.0.1:f, 1.0.0.2:f}"),
        *("PS{1:r, 1.0.0.1:f, 1.0.0.2:f, 1.0.0.3:r}", "executing 1.0.0.3", "executed 1.0.0.3"),
        "PS{1:r, 1.0.0.1:f, 1.0.0.2:f, 1.0.0.3:f}",
        "PS{1:f, 1.0.0.1:f, 1.0.0.2:f, 1.0.0.3:f}",
        *("PS{1:f, 1.0.0.1:f, 1.0.0.2:f, 1.0.0.3:f, 2:r}", "executing 2", "executed 2"),
        *("PS{1:f, 1.0.0.1:f, 1.0.0.2:f, 1.0.0.3:f, 2:f}", "execution_success"),
    ]
    inner = ran.of("progress_state")[1]["nodes"]["1.0.0.1"]
    assert (inner["display_node_id"], inner["parent_node_id"], inner["real_node_id"]) == ("1", "1", "1")
    assert ran.of("executing")[1] == {"node": "1.0.0.1", "display_node": "1", "prompt_id": "job"}


def test_4_6_a_list_input_is_one_execution() -> None:
    ran = Bench().run({"1": node("ToList", n=3, start=5), "2": node("Show", value=["1", 0])})
    assert [line for line in ran.short if line.endswith(" 2")] == ["executing 2", "executed 2"]
    assert ran.of("executed")[0]["output"] == {"text": [5, 6, 7]}


def test_without_a_client_progress_goes_to_all_and_executing_to_nobody() -> None:  # hard case 15
    ran = Bench().run({"1": node("Steps", steps=1, stop_at=0, preview=False), "2": node("Show", value=["1", 0])}, client=None)
    audiences = {event.name: event.audience for event in ran.events if isinstance(event, Message)}
    assert audiences == {
        "execution_start": Audience.OWNER,
        "execution_cached": Audience.OWNER,
        "progress_state": Audience.OWNER_OR_ALL,
        "executing": Audience.OWNER,
        "progress": Audience.OWNER_OR_ALL,
        "executed": Audience.OWNER,
        "execution_success": Audience.OWNER,
    }
    assert {event.client_id for event in ran.events} == {None}


def test_an_interrupt_and_a_blocked_input_reach_all_sockets_of_an_anonymous_job() -> None:
    interrupted = Bench().run({"1": node("Steps", steps=2, stop_at=1, preview=False), "2": node("Show", value=["1", 0])}, client=None)
    assert interrupted.events[-1].audience is Audience.OWNER_OR_ALL
    blocked = Bench().run({"1": node("Block", value=2, message="even"), "2": node("Show", value=["1", 0])}, client=None)
    (event,) = (event for event in blocked.events if isinstance(event, Message) and event.name == "execution_error")
    assert event.audience is Audience.OWNER_OR_ALL


def test_execution_start_tells_the_lane_only_when_asked() -> None:
    prompt = {"1": node("Show", value=1)}
    assert "gpu_id" not in Bench(lane=3).run(prompt).of("execution_start")[0]
    ran = Bench(lane=3, show_gpu_id=True).run(prompt)
    assert ran.of("execution_start")[0]["gpu_id"] == 3
    assert ran.result.messages[0][1]["gpu_id"] == 3
    assert {event.lane for event in ran.events} == {3}


def test_the_result_and_every_event_pickle() -> None:
    ran = Bench().run(
        {"1": node("Expand", value=5, n=3), "2": node("Steps", steps=1, stop_at=0, preview=True), "3": node("Fail", value=["2", 0])}
    )
    assert pickle.loads(pickle.dumps(ran.result)) == ran.result
    assert len(pickle.loads(pickle.dumps(ran.events))) == len(ran.events)


def test_the_history_of_a_success() -> None:
    ran = Bench().run(TWO_OUTPUTS)
    assert ran.result.status["status_str"] == "success"
    assert [name for name, _ in ran.result.messages] == ["execution_start", "execution_cached", "execution_success"]
    assert ran.result.messages[1][1]["nodes"] == []
    assert ran.result.meta["2"] == {"node_id": "2", "display_node": "2", "parent_node": None, "real_node_id": "2"}
