"""Which ready node runs next (execution.md section 6)."""

from __future__ import annotations

from comfy_execution.job import JobState
from tests.unit.execution import nodes
from tests.unit.execution.harness import Bench, Ran, node


def executed(ran: Ran) -> list[str]:
    return [data["node"] for data in ran.of("executing")]


def test_an_output_goes_before_a_node_that_feeds_one() -> None:
    prompt = {
        "1": node("Const", n=1),
        "2": node("Show", value=["1", 0]),
        "3": node("Const", n=2),
        "4": node("Show", value=["3", 0]),
        "5": node("Show", value=9),
    }
    assert executed(Bench().run(prompt)) == ["5", "1", "2", "3", "4"]


def test_a_node_that_feeds_an_output_goes_before_one_two_steps_away() -> None:
    prompt = {
        "1": node("Const", n=1),
        "2": node("Add", a=["1", 0], b=0),
        "3": node("Add", a=["2", 0], b=0),
        "4": node("Show", value=["3", 0]),
        "5": node("Const", n=2),
        "6": node("Add", a=["5", 0], b=1),
        "7": node("Show", value=["6", 0]),
        "8": node("Const", n=3),
        "9": node("Show", value=["8", 0]),
    }
    assert executed(Bench().run(prompt)) == ["8", "9", "5", "6", "7", "1", "2", "3", "4"]


def test_only_what_the_outputs_need_runs() -> None:
    prompt = {"1": node("Const", n=1), "2": node("Show", value=["1", 0]), "3": node("Const", n=2), "4": node("Show", value=["3", 0])}
    assert executed(Bench().run(prompt, "2")) == ["1", "2"]


def test_nothing_selected_is_a_success_without_nodes() -> None:  # hard case 14, behind the validation that refuses it
    ran = Bench().run({"1": node("Const", n=1)})
    assert ran.short == ["execution_start", "execution_cached []", "execution_success"]


def test_a_cycle_at_run_time_is_an_error() -> None:
    bench = Bench()
    ran = bench.run({"1": node("Add", a=["2", 0], b=1), "2": node("Add", a=["1", 0], b=1), "3": node("Show", value=["2", 0])})
    error = dict(ran.error)
    assert error.pop("timestamp")
    assert error == {
        "prompt_id": "job",
        "node_id": "2",
        "node_type": "Add",
        "executed": [],
        "exception_message": "Dependency cycle detected",
        "exception_type": "graph.DependencyCycleError",
        "traceback": [],
        "current_inputs": [],
        "current_outputs": [],
    }
    assert ran.result.state is JobState.FAILED
    assert bench.run({"1": node("Show", value=1)}).result.state is JobState.SUCCEEDED


def test_a_chain_of_ten_thousand_nodes_runs() -> None:
    prompt = {str(i): node("Add", a=[str(i + 1), 0], b=1) for i in range(1, 10_000)}
    prompt |= {"0": node("Show", value=["1", 0]), "10000": node("Const", n=1)}
    ran = Bench(keep_events=False).run(prompt)
    assert ran.result.outputs == {"0": {"text": [10_000]}}
    assert nodes.Const.made == ["10000"]
