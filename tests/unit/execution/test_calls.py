"""Inputs, lists, return values, blockers and lazy inputs (execution.md sections 7 to 11)."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_execution.calling import slices
from comfy_execution.graph import ExecutionBlocker
from comfy_execution.job import JobState
from tests.unit.execution import nodes
from tests.unit.execution.harness import Bench, Ran, node, texts


def returning(monkeypatch: pytest.MonkeyPatch, value: Any) -> Ran:
    monkeypatch.setattr(nodes.Returns, "value", value)
    return Bench().run({"1": node("Returns", key=1), "2": node("Show", value=["1", 0]), "3": node("Show", value=["1", 1])})


def test_lists_of_different_lengths_repeat_the_last_element() -> None:
    assert list(slices({"a": [1, 2, 3], "b": [4, 5]}, False)) == [{"a": 1, "b": 4}, {"a": 2, "b": 5}, {"a": 3, "b": 5}]
    assert list(slices({}, False)) == [{}]
    assert list(slices({"a": [], "b": []}, False)) == [{}]
    assert list(slices({"a": [], "b": [1]}, True)) == [{"a": [], "b": [1]}]
    with pytest.raises(IndexError):
        list(slices({"a": [], "b": [1]}, False))


def test_a_node_runs_once_per_element_and_a_list_node_once() -> None:
    prompt = {
        "1": node("ToList", n=3, start=10),
        "2": node("Add", a=["1", 0], b=["1", 1]),
        "3": node("SumList", values=["2", 0], extra=7),
        "4": node("Show", value=["2", 0]),
        "5": node("Show", value=["3", 0]),
    }
    assert texts(Bench().run(prompt)) == {"4": [13, 14, 15], "5": [(13 + 14 + 15) * 10 + 1]}


def test_empty_lists_call_once_without_arguments() -> None:
    ran = Bench().run({"1": node("ToList", n=0, start=0), "2": node("Show", value=["1", 0])})
    assert ran.error["exception_type"] == "TypeError"
    ran = Bench().run({"1": node("ToList", n=0, start=0), "2": node("Add", a=["1", 0], b=1), "3": node("Show", value=["2", 0])})
    assert (ran.error["node_id"], ran.error["exception_type"]) == ("2", "IndexError")


@pytest.mark.parametrize(
    ("returned", "shown"),
    [
        ((1, 2), {"2": [1], "3": [2]}),
        ([1, 2], {"2": [1], "3": [2]}),
        ({"result": (1, 2)}, {"2": [1], "3": [2]}),
        ({"ui": {"text": ["x"]}}, {"1": ["x"], "2": [None], "3": [None]}),
        ({"ui": {"text": ["x"]}, "result": (1, 2)}, {"1": ["x"], "2": [1], "3": [2]}),
        ({"other": 1}, {"2": [None], "3": [None]}),
        ((1,), {"2": [1], "3": [None]}),
        ("ab", {"2": ["a"], "3": ["b"]}),
        (ExecutionBlocker(None), {}),
        ({"result": ExecutionBlocker(None), "ui": {"text": ["x"]}}, {"1": ["x"]}),
        (nodes.NodeOutput(1, 2), {"2": [1], "3": [2]}),
        (nodes.NodeOutput(ui={"text": ["x"]}), {"1": ["x"], "2": [None], "3": [None]}),
    ],
)
def test_return_values(monkeypatch: pytest.MonkeyPatch, returned: Any, shown: dict[str, Any]) -> None:
    ran = returning(monkeypatch, returned)
    assert ran.result.state is JobState.SUCCEEDED
    assert texts(ran) == shown


@pytest.mark.parametrize("returned", [None, 5, {"expand": {}}, {"ui": {"x": 5}, "result": (1,)}])
def test_returns_that_are_the_nodes_mistake(monkeypatch: pytest.MonkeyPatch, returned: Any) -> None:
    ran = returning(monkeypatch, returned)
    assert (ran.error["node_id"], ran.error["exception_type"]) == ("1", "TypeError")


def test_a_ui_result_that_is_no_json_is_the_nodes_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = returning(monkeypatch, {"ui": {"x": [object()]}, "result": (1, 2)})
    assert ran.error["exception_type"] == "comfy_execution.outputs.UiNotJson"


def test_an_undeclared_link_reaches_the_node_and_an_undeclared_literal_does_not() -> None:  # hard case 13
    ran = Bench().run({"1": node("Const", n=4), "2": node("Kwargs", linked=["1", 0], literal=5)})
    assert ran.result.outputs["2"] == {"got": [[["linked", 4]]]}


def test_a_literal_list_that_looks_like_a_link_is_none() -> None:
    assert texts(Bench().run({"1": node("Show", value={"__value__": ["1", 0]})})) == {"1": [["1", 0]]}


def test_hidden_inputs_and_what_change_detection_sees_of_them() -> None:  # hard case 11
    prompt = {"1": node("Const", n=4), "2": node("Hidden", value=["1", 0])}
    secrets = {"auth_token_comfy_org": "s3cret"}
    ran = Bench().run(prompt, secrets=secrets, extra={"extra_pnginfo": {"workflow": 1}})
    assert ran.result.outputs["2"] == {"got": ["2", ["1", "2"], True, {"workflow": 1}, "***"]}
    assert nodes.Hidden.changed == [(None, "2", {}, None, None, None)]


def test_the_submitted_prompt_is_left_alone() -> None:
    prompt = {"1": node("Const", n=4), "2": node("Hidden", value=["1", 0])}
    Bench().run(prompt)
    assert prompt == {"1": node("Const", n=4), "2": node("Hidden", value=["1", 0])}


def test_a_silent_blocker_skips_what_depends_on_it() -> None:
    prompt = {"1": node("Block", value=2, message=""), "2": node("Add", a=["1", 0], b=1), "3": node("Show", value=["2", 0])}
    ran = Bench().run(prompt)
    assert ran.result.state is JobState.SUCCEEDED
    assert ran.result.outputs == {}
    assert "executing 3" in ran.short
    assert "executed 3" not in ran.short
    assert "execution_error" not in ran.short


def test_a_blocker_with_a_message_is_told_once_per_branch_and_not_kept() -> None:  # hard case 4
    prompt = {
        "1": node("Block", value=2, message="even"),
        "2": node("Add", a=["1", 0], b=1),
        "3": node("Show", value=["2", 0]),
        "4": node("Show", value=["1", 1]),
    }
    ran = Bench().run(prompt, "3", "4")
    errors = {error["node_id"]: error for error in ran.of("execution_error")}
    assert set(errors) == {"2", "4"}
    assert errors["2"] | {"executed": ["1"]} == {
        "prompt_id": "job",
        "node_id": "2",
        "node_type": "Add",
        "executed": ["1"],
        "exception_message": "Execution Blocked: even",
        "exception_type": "ExecutionBlocked",
        "traceback": [],
        "current_inputs": [],
        "current_outputs": [],
    }
    assert ran.result.state is JobState.SUCCEEDED
    assert [name for name, _ in ran.result.messages] == ["execution_start", "execution_cached", "execution_success"]


def test_with_lists_only_the_blocked_index_is_skipped() -> None:  # hard case 5
    prompt = {"1": node("ToList", n=4, start=0), "2": node("Block", value=["1", 0], message=""), "3": node("Show", value=["2", 0])}
    assert texts(Bench().run(prompt)) == {"3": [1, 3]}
    prompt["3"] = node("SumList", values=["2", 0], extra=1)
    prompt["4"] = node("Show", value=["3", 0])
    assert texts(Bench().run(prompt)) == {}


def test_only_the_branch_that_is_asked_for_runs() -> None:
    prompt = {
        "1": node("Const", n=1),
        "2": node("Const", n=2),
        "3": node("Switch", second=True, a=["1", 0], b=["2", 0]),
        "4": node("Show", value=["3", 0]),
    }
    assert texts(Bench().run(prompt)) == {"4": [2]}
    assert nodes.Const.made == ["2"]


def test_constants_may_be_asked_for_and_absent_inputs_may_not() -> None:
    assert texts(Bench().run({"3": node("Switch", second=True, a=1, b=2), "4": node("Show", value=["3", 0])})) == {"4": [2]}
    ran = Bench().run({"3": node("LazyWrong", second=True, a=1, b=2), "4": node("Show", value=["3", 0])})
    assert (ran.error["node_id"], ran.error["exception_type"]) == ("3", "comfy_execution.graph.NodeInputError")


def test_without_a_lazy_check_lazy_inputs_stay_none() -> None:
    prompt = {"1": node("Const", n=1), "3": node("NeverLazy", second=True, a=["1", 0], b=["1", 0]), "4": node("Show", value=["3", 0])}
    assert texts(Bench().run(prompt)) == {"4": [1]}


def test_a_lazy_input_whose_slot_does_not_exist_is_asked_for_once() -> None:
    prompt = {"1": node("Const", n=1), "3": node("Switch", second=False, a=["1", 7], b=2), "4": node("Show", value=["3", 0])}
    assert texts(Bench().run(prompt)) == {"4": [None]}


def test_v3_classes_run_on_a_locked_clone_with_their_hidden_values() -> None:
    ran = Bench().run({"1": node("V3", n=5)})
    assert ran.result.outputs == {"1": {"text": ["from an object"]}}
    locked = Bench().run({"1": node("V3", n=1)})
    assert locked.error["exception_type"] == "AttributeError"
    assert not hasattr(nodes.V3, "state")
    blocked = Bench().run({"1": node("V3", n=0), "2": node("Show", value=["1", 0])})
    assert blocked.error["exception_message"] == "Execution Blocked: zero"
    assert blocked.result.state is JobState.SUCCEEDED
