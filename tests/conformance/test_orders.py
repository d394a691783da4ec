"""The orders of websocket.md section 4, event by event, on both kinds of server."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.conformance.site import Site, Tab, node, short

END = ["execution_success", "status 0", "executing None"]


def begin(cached: str = "[]") -> list[str]:
    return ["status 1", "status 1", "execution_start", f"execution_cached {cached}"]


def picture(color: int) -> dict[str, Any]:
    return {
        "1": node("EmptyImage", width=64, height=32, batch_size=1, color=color),
        "2": node("SaveImage", images=["1", 0], filename_prefix="t1/x"),
        "3": node("PreviewImage", images=["1", 0]),
    }


def steps(n: int, count: int = 2, gate: str = "", preview: bool = False) -> dict[str, Any]:
    return {
        "0": node("ProbeNumber", n=n),
        "1": node("ProbeSteps", value=["0", 0], steps=count, gate=gate, preview=preview),
        "2": node("ProbeShow", value=["1", 0]),
    }


def lane(site: Site) -> int | None:
    """One lane for all prompts of a test, whose caches build on each other."""
    return 0 if site.multi else None


def test_4_1_and_4_2_a_first_run_and_the_same_prompt_again(site: Site) -> None:
    tab = site.tab("orders")
    assert tab.run(picture(255), "first", lane(site)) == [
        *begin(),
        "PS{1:r 0.0/1.0}",
        "executing 1",
        "PS{1:f 1.0/1.0}",
        "PS{1:f 1.0/1.0, 2:r 0.0/1.0}",
        "executing 2",
        "executed 2",
        "PS{1:f 1.0/1.0, 2:f 1.0/1.0}",
        "PS{1:f 1.0/1.0, 2:f 1.0/1.0, 3:r 0.0/1.0}",
        "executing 3",
        "executed 3",
        "PS{1:f 1.0/1.0, 2:f 1.0/1.0, 3:f 1.0/1.0}",
        *END,
    ]
    first, third = tab.data("executed")
    (image,) = first["output"]["images"]
    assert re.fullmatch(r"x_\d{5}_\.png", image["filename"])
    assert first == {
        "node": "2",
        "display_node": "2",
        "output": {"images": [{"filename": image["filename"], "subfolder": "t1", "type": "output"}]},
        "prompt_id": "first",
    }
    assert third["output"]["images"][0]["type"] == "temp"
    state = tab.data("progress_state")[0]
    ids = {"node_id": "1", "prompt_id": "first", "display_node_id": "1", "parent_node_id": None, "real_node_id": "1"}
    assert state == {"prompt_id": "first", "nodes": {"1": {"value": 0.0, "max": 1.0, "state": "running", **ids}}}

    assert tab.run(picture(255), "again", lane(site)) == [
        *begin("['1', '2', '3']"),
        "executed 2",
        "PS{2:f 1/1}",
        "executed 3",
        "PS{2:f 1/1, 3:f 1/1}",
        *END,
    ]
    assert [data["output"] for data in tab.data("executed")] == [first["output"], third["output"]]


def test_the_history_record_is_there_before_the_job_leaves_the_count(site: Site) -> None:
    tab = site.tab()
    prompt_id = tab.post(picture(1))
    tab.until(prompt_id, "execution_success")
    tab.until_status(0)
    assert site.record(prompt_id)["status"]["completed"] is True


@pytest.mark.parametrize("metadata", [False, True])
def test_4_3_progress_with_previews(site: Site, metadata: bool) -> None:
    tab = site.tab("new" if metadata else "old", metadata)
    seen = tab.run(steps(10 + metadata, preview=True), f"progress {metadata}", lane(site))
    done = "PS{0:f 1.0/1.0, 1:"
    each = [[f"{done}r {i}/2}}", *(("binary 4", f"progress 1 {i}/2") if metadata else (f"progress 1 {i}/2", "binary 1"))] for i in (1, 2)]
    start = seen.index("executing 1")
    assert seen[start - 1 : start + 8] == [f"{done}r 0.0/1.0}}", "executing 1", *each[0], *each[1], f"{done}f 2/2}}"]
    assert tab.data("progress") == [{"value": i, "max": 2, "prompt_id": f"progress {metadata}", "node": "1"} for i in (1, 2)]


def test_4_3_without_previews_there_is_no_binary_frame(site: Site) -> None:
    assert not [event for event in site.tab().run(steps(12), None, lane(site)) if event.startswith("binary")]


def test_4_4_an_error_in_a_node_after_a_cached_one(site: Site) -> None:
    tab = site.tab()
    prompt = {"1": node("ProbeNumber", n=20), "2": node("ProbeShow", value=["1", 0])}
    tab.run(prompt, None, lane(site))
    prompt |= {"2": node("ProbeFail", value=["1", 0], n=3), "3": node("ProbeShowToo", value=["2", 0])}
    seen = tab.run(prompt, "bad", lane(site))
    assert seen == [*begin("['1']"), "PS{2:r 0.0/1.0}", "executing 2", "execution_error", "status 0", "executing None"]
    (error,) = tab.data("execution_error")
    assert isinstance(error.pop("timestamp"), int)
    trace = error.pop("traceback")
    assert trace
    assert all(isinstance(line, str) for line in trace)
    assert sorted(error.pop("current_outputs")) == ["1", "2", "3"]
    assert error == {
        "prompt_id": "bad",
        "node_id": "2",
        "node_type": "ProbeFail",
        "executed": [],
        "exception_message": "probe failure 3\n",
        "exception_type": "ValueError",
        "current_inputs": {"value": [20], "n": [3]},
    }
    status = site.record("bad")["status"]
    assert (status["status_str"], status["completed"]) == ("error", False)
    assert [name for name, _ in status["messages"]] == ["execution_start", "execution_cached", "execution_error"]


@pytest.mark.parametrize("by_id", [False, True])
def test_4_5_an_interrupt_takes_effect_at_the_next_report(site: Site, by_id: bool) -> None:
    tab = site.tab()
    gate = f"interrupt-{site.lanes}-{by_id}"
    prompt_id = tab.post(steps(30 + by_id, 200, gate), f"stopped {by_id}", lane(site))
    site.open(gate, 8)
    tab.until(prompt_id, "progress", value=8)
    assert site.post("/interrupt", {"prompt_id": prompt_id} if by_id else {}).status == 200
    tab.until(prompt_id)
    seen = [short(entry) for entry in tab.log]
    assert seen[-5:] == ["PS{0:f 1.0/1.0, 1:r 8/200}", "progress 1 8/200", "execution_interrupted", "status 0", "executing None"]
    (data,) = tab.data("execution_interrupted")
    assert isinstance(data.pop("timestamp"), int)
    assert data == {"prompt_id": prompt_id, "node_id": "1", "node_type": "ProbeSteps", "executed": ["0"]}
    status = site.record(prompt_id)["status"]
    assert (status["status_str"], status["completed"]) == ("error", False)
    assert status["messages"][-1][0] == "execution_interrupted"
    assert tab.run(steps(35, 1), None, lane(site))[-3:] == END  # the flag does not reach the next job


def test_4_5_a_node_that_reports_nothing_runs_to_its_end(site: Site) -> None:
    tab, gate = site.tab(), f"silent-{site.lanes}"
    prompt = {
        "1": node("ProbeNumber", n=36),
        "2": node("ProbeSilent", value=["1", 0], gate=gate),
        "3": node("ProbeShow", value=["2", 0]),
    }
    prompt_id = tab.post(prompt, None, lane(site))
    site.until_runs(f"silent {gate} begins")
    site.post("/interrupt", {})
    site.open(gate)
    tab.until(prompt_id)
    assert site.get("/probe/runs").json()[f"silent {gate} ends"] == 1
    assert tab.data("execution_interrupted")[0]["node_id"] == "3"


def test_4_6_a_lazy_node_is_started_again_for_what_it_asked_for(site: Site) -> None:
    prompt = {
        "a": node("ProbeNumber", n=40),
        "b": node("ProbeNumber", n=41),
        "L": node("ProbeSwitch", second=True, a=["a", 0], b=["b", 0]),
        "3": node("ProbeShow", value=["L", 0]),
    }
    tab = site.tab()
    seen = [event for event in tab.run(prompt, None, lane(site)) if event.startswith("executing")]
    assert seen == ["executing L", "executing b", "executing L", "executing 3", "executing None"]
    assert tab.data("executed")[-1]["output"] == {"text": ["41"]}


def test_4_6_other_nodes_run_while_an_asynchronous_one_waits(site: Site) -> None:
    gate = f"async-{site.lanes}"
    prompt = {
        "0": node("ProbeNumber", n=50),
        "1": node("ProbeAsync", value=["0", 0], gate=gate),
        "2": node("ProbeShow", value=["1", 0]),
        "3": node("ProbeShowToo", value=["0", 0]),
    }
    tab = site.tab()
    prompt_id = tab.post(prompt, None, lane(site))
    tab.until(prompt_id, "executed", node="3")
    site.open(gate)
    tab.until(prompt_id)
    seen = [short(entry) for entry in tab.log]
    assert seen.count("executing 1") == 1
    assert seen.index("executing 1") < seen.index("executed 3") < seen.index("executing 2")
    assert seen[-3:] == END


def test_4_6_the_nodes_of_an_expansion_show_at_the_node_that_expands(site: Site) -> None:
    prompt = {
        "0": node("ProbeNumber", n=60),
        "1": node("ProbeExpand", value=["0", 0], n=5),
        "2": node("ProbeShow", value=["1", 0]),
    }
    tab = site.tab()
    seen = [event for event in tab.run(prompt, None, lane(site)) if event.startswith("exec")]
    inner = ["executing 1.0.0.1", "executing 1.0.0.2"]
    assert seen[2:] == ["executing 0", "executing 1", *inner, "executing 2", "executed 2", "execution_success", "executing None"]
    assert {data["display_node"] for data in tab.data("executing") if str(data["node"]).startswith("1.")} == {"1"}
    states = tab.data("progress_state")
    assert states[-1]["nodes"]["1.0.0.1"] | {"value": 1, "max": 1} == {
        "value": 1,
        "max": 1,
        "state": "finished",
        "node_id": "1.0.0.1",
        "prompt_id": states[-1]["prompt_id"],
        "display_node_id": "1",
        "parent_node_id": "1",
        "real_node_id": "1",
    }
    at = next(i for i, state in enumerate(states) if state["nodes"].get("1", {}).get("state") == "finished")
    assert states[at]["nodes"]["1.0.0.2"]["state"] == "finished"
    assert tab.data("executed")[-1]["output"] == {"text": ["65"]}


def test_4_6_a_list_gives_one_executing_and_one_executed(site: Site) -> None:
    prompt = {"1": node("ProbeItems", n=3), "2": node("ProbeShow", value=["1", 0])}
    tab = site.tab()
    seen = tab.run(prompt, None, lane(site))
    assert (seen.count("executing 2"), seen.count("executed 2")) == (1, 1)
    assert tab.data("executed")[0]["output"] == {"text": ["0", "1", "2"]}


@pytest.mark.parametrize("message", ["", "not today"])
def test_a_blocked_branch(site: Site, message: str) -> None:
    prompt = {"1": node("ProbeBlock", message=message), "2": node("ProbeShow", value=["1", 0])}
    tab = site.tab()
    seen = tab.run(prompt, f"block {message}", lane(site))
    assert seen[-3:] == END
    assert "executing 2" in seen
    assert "executed 2" not in seen
    errors = tab.data("execution_error")
    record = site.record(f"block {message}")
    assert record["status"]["status_str"] == "success"
    assert [name for name, _ in record["status"]["messages"]] == ["execution_start", "execution_cached", "execution_success"]
    if not message:
        assert errors == []
        return
    (error,) = errors
    assert "timestamp" not in error
    assert (error["exception_type"], error["exception_message"]) == ("ExecutionBlocked", "Execution Blocked: not today")
    assert (error["node_id"], error["traceback"], error["current_inputs"], error["current_outputs"]) == ("2", [], [], [])


def test_equal_nodes_run_once_and_both_report(site: Site) -> None:
    prompt = {"1": node("ProbeNumber", n=70), "2": node("ProbeShow", value=["1", 0]), "3": node("ProbeShow", value=["1", 0])}
    tab = site.tab()
    seen = tab.run(prompt, None, lane(site))
    assert [event for event in seen if event.startswith("executing")] == ["executing 1", "executing 2", "executing None"]
    assert [data["output"] for data in tab.data("executed")] == [{"text": ["70"]}] * 2


def test_deleting_and_clearing_waiting_jobs_tells_the_count(site: Site) -> None:
    tab, gate = site.tab(), f"held-{site.lanes}"
    held = tab.post(steps(80, 1, gate), None, lane(site))
    tab.until(held, "executing", node="1")
    ids = [tab.post(steps(81 + i, 1), None, lane(site)) for i in range(3)]
    tab.until_status(4)
    site.post("/queue", {"delete": ids[:1]})
    tab.until_status(3)
    site.post("/queue", {"clear": True})
    tab.until_status(1)
    site.open(gate)
    tab.until(held)
    assert [entry for entry in tab.log if any(prompt_id in str(entry) for prompt_id in ids)] == []


def test_no_event_for_history_changes_and_rejected_prompts(site: Site) -> None:
    tab: Tab = site.tab()
    assert site.post("/prompt", {"prompt": {}, "client_id": tab.sid}).status == 400
    site.post("/history", {"delete": ["nothing"]})
    site.post("/history", {"clear": True})
    assert tab.drain() == []
