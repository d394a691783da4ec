"""What is kept between prompts, by each policy (execution.md section 14)."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest

from comfy_execution.caching import ExecutionCache
from comfy_execution.signature import _NeverEqual, value_digest
from tests.unit.execution import nodes
from tests.unit.execution.harness import Bench, Ran, node, texts

SIMPLE = {"1": node("Const", n=3), "2": node("Add", a=["1", 0], b=1), "3": node("Show", value=["2", 0])}


def executed(ran: Ran) -> list[str]:
    return [data["node"] for data in ran.of("executing")]


def test_duplicate_nodes_run_once_and_the_second_reports_the_same() -> None:  # hard case 1
    prompt = {"1": node("Const", n=3), "2": node("Show", value=["1", 0]), "3": node("Show", value=["1", 0])}
    ran = Bench().run(prompt)
    assert executed(ran) == ["1", "2"]
    assert ran.short[-3:] == ["executed 3", "PS{1:f, 2:f, 3:f}", "execution_success"]
    assert ran.result.outputs == {"2": {"text": [3]}, "3": {"text": [3]}}
    assert ran.result.meta["3"]["node_id"] == "3"


def test_a_cached_node_that_is_no_output_reports_null() -> None:  # hard case 2
    prompt = {"1": node("Const", n=3), "4": node("Const", n=3), "2": node("Add", a=["1", 0], b=["4", 0]), "3": node("Show", value=["2", 0])}
    ran = Bench().run(prompt)
    assert len(nodes.Const.made) == 1
    assert [data["output"] for data in ran.of("executed")] == [None, {"text": [6]}]


def test_a_renumbered_workflow_keeps_its_results() -> None:
    bench = Bench()
    bench.run(SIMPLE)
    ran = bench.run({"x": node("Const", n=3), "y": node("Add", a=["x", 0], b=1), "z": node("Show", value=["y", 0])})
    assert executed(ran) == []
    assert texts(ran) == {"z": [4]}
    assert ran.result.meta["z"]["node_id"] == "z"


def test_a_changed_constant_runs_what_depends_on_it() -> None:
    bench = Bench()
    bench.run(SIMPLE)
    assert executed(bench.run({**SIMPLE, "2": node("Add", a=["1", 0], b=2)})) == ["2", "3"]


@pytest.mark.parametrize(("policy", "again"), [("classic", ["1", "2", "3"]), ("lru", []), ("none", ["1", "2", "3"])])
def test_what_each_policy_keeps_over_another_prompt(policy: str, again: list[str]) -> None:
    bench = Bench(policy=policy, lru=10)
    bench.run(SIMPLE)
    bench.run({"1": node("Show", value=1)})
    ran = bench.run(SIMPLE)
    assert executed(ran) == again
    assert texts(ran) == {"3": [4]}


def test_lru_drops_whole_generations_oldest_first() -> None:
    bench = Bench(policy="lru", lru=2)
    bench.run({"1": node("Show", value=1)})
    bench.run({"1": node("Show", value=2)})
    bench.run({"1": node("Show", value=3)})
    assert executed(bench.run({"1": node("Show", value=2)})) == []
    assert executed(bench.run({"1": node("Show", value=1)})) == ["1"]


def test_lru_of_zero_is_classic() -> None:
    assert ExecutionCache("lru", 0).policy == "classic"


def test_an_unknown_policy_is_told() -> None:
    with pytest.raises(ValueError, match="nope"):
        ExecutionCache("nope")


def test_none_drops_a_result_once_all_that_need_it_have_run() -> None:
    bench = Bench(policy="none")
    held: list[bool] = []

    class Look(nodes.Show):
        def show(self, value: Any) -> dict[str, Any]:
            held.append(bench.executor.cache.outputs("1") is not None)
            return super().show(value)

    bench.executor.registry.add({"Look": Look}, module="tests")
    prompt = {
        "1": node("Const", n=3),
        "2": node("Add", a=["1", 0], b=1),
        "3": node("Look", value=["2", 0]),
        "4": node("Look", value=["1", 0]),
        "5": node("Look", value=["3", 0]),
    }
    ran = bench.run(prompt)
    assert texts(ran) == {"3": [4], "4": [3], "5": [4]}
    assert held == [True, False, False]
    assert len(bench.executor.cache) == 0


def test_none_keeps_what_a_twin_still_needs() -> None:
    prompt = {
        "1": node("Const", n=3),
        "2": node("Const", n=3),
        "3": node("Show", value=["1", 0]),
        "4": node("Add", a=["2", 0], b=1),
        "5": node("Show", value=["4", 0]),
    }
    ran = Bench(policy="none").run(prompt)
    assert texts(ran) == {"3": [3], "5": [4]}
    assert len(nodes.Const.made) == 1


def test_reset_drops_everything() -> None:
    bench = Bench()
    bench.run(SIMPLE)
    bench.executor.reset()
    assert executed(bench.run(SIMPLE)) == ["1", "2", "3"]


def calls(ran: Ran, node_id: str) -> int:
    return ran.result.outputs[node_id]["calls"][0]


def test_an_instance_lives_while_its_node_stays_in_consecutive_prompts() -> None:  # hard case 20
    bench = Bench()
    assert calls(bench.run({"1": node("Counter", n=1)}), "1") == 1
    assert calls(bench.run({"1": node("Counter", n=2)}), "1") == 2
    assert calls(bench.run({"1": node("Counter", n=3), "2": node("Counter", n=3)}), "2") == 1
    bench.run({"9": node("Show", value=1)})
    assert calls(bench.run({"1": node("Counter", n=4)}), "1") == 1


def test_instances_live_for_one_prompt_without_a_cache() -> None:
    bench = Bench(policy="none")
    assert [calls(bench.run({"1": node("Counter", n=1)}), "1") for _ in range(2)] == [1, 1]


@pytest.mark.parametrize(
    ("change", "runs"),
    [("same", 1), (5, 1), ([1, {"a": 2}], 1), (float("nan"), 2), (math.nan, 2), (numpy.nan, 2), (object(), 2), (ValueError("x"), 2)],
)
def test_the_change_value_decides_whether_a_node_runs_again(monkeypatch: pytest.MonkeyPatch, change: Any, runs: int) -> None:
    monkeypatch.setattr(nodes.Changed, "change", change)
    bench = Bench()
    prompt = {"1": node("Changed", n=3), "2": node("Show", value=["1", 0])}
    bench.run(prompt)
    ran = bench.run(prompt)
    assert nodes.Changed.runs == runs
    assert texts(ran) == {"2": [3]}


def test_another_change_value_runs_what_depends_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    prompt = {"1": node("Changed", n=3), "2": node("Show", value=["1", 0])}
    bench.run(prompt)
    monkeypatch.setattr(nodes.Changed, "change", 2)
    assert executed(bench.run(prompt)) == ["1", "2"]


@pytest.mark.parametrize(
    ("a", "b"), [(1, 1.0), (1, True), ([], {}), ((), []), ([1, 2], (1, 2)), ({"a": 1, "b": 2}, {"b": 2, "a": 1}), (10**30, 10**30)]
)
def test_values_that_are_one(a: Any, b: Any) -> None:
    assert value_digest(a) == value_digest(b)


@pytest.mark.parametrize(
    ("a", "b"), [(1, "1"), (None, "None"), (0, None), ([1, 2], [2, 1]), ({"a": 1}, {"a": 2}), (0.1, 0.2), ("", []), (math.inf, -math.inf)]
)
def test_values_that_differ(a: Any, b: Any) -> None:
    assert value_digest(a) != value_digest(b)


@pytest.mark.parametrize("value", [math.nan, [math.nan], object(), {"a": [object()]}])
def test_values_that_equal_nothing(value: Any) -> None:
    with pytest.raises(_NeverEqual):
        value_digest(value)
