"""Asynchronous nodes run side by side on the job's own loop (execution.md section 13)."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_execution.job import JobState
from tests.unit.execution import nodes
from tests.unit.execution.harness import Bench, node, texts


def later(value: int, waits_for: str = "", opens: str = "") -> dict[str, Any]:
    return node("Later", value=value, waits_for=waits_for, opens=opens)


def test_two_asynchronous_nodes_wait_for_each_other() -> None:
    prompt = {
        "1": later(1, waits_for="b", opens="a"),
        "2": later(2, waits_for="a", opens="b"),
        "3": node("Add", a=["1", 0], b=["2", 0]),
        "4": node("Show", value=["3", 0]),
    }
    ran = Bench().run(prompt)
    assert texts(ran) == {"4": [3]}
    assert [entry for entry in ran.short if entry.startswith("executing")] == ["executing 2", "executing 1", "executing 3", "executing 4"]
    assert nodes.Later.log[:2] == ["start 2", "start 1"]


def test_one_that_is_done_at_once_is_not_parked() -> None:
    ran = Bench().run({"1": later(5), "2": node("Show", value=["1", 0])})
    assert ran.short[2:5] == ["PS{1:r}", "executing 1", "PS{1:f}"]


def test_each_call_of_a_list_is_a_task() -> None:
    prompt = {
        "0": node("ToList", n=3, start=5),
        "1": node("Later", value=["0", 0], waits_for="", opens=""),
        "2": node("Show", value=["1", 0]),
    }
    assert texts(Bench().run(prompt)) == {"2": [5, 6, 7]}


def test_other_nodes_run_while_one_is_parked() -> None:
    prompt = {
        "1": later(1, waits_for="gate"),
        "2": node("Show", value=["1", 0]),
        "3": node("Const", n=7),
        "4": node("Later", value=["3", 0], waits_for="", opens="gate"),
        "5": node("Show", value=["4", 0]),
    }
    ran = Bench().run(prompt)
    assert texts(ran) == {"2": [1], "5": [7]}
    assert nodes.Later.log[0] == "start 1"
    assert "end 1" in nodes.Later.log


def test_the_exception_of_a_task_is_the_nodes_error() -> None:
    ran = Bench().run(
        {"1": later(-1, waits_for="b"), "3": later(2, opens="b"), "2": node("Show", value=["1", 0]), "4": node("Show", value=["3", 0])}
    )
    assert (ran.error["node_id"], ran.error["exception_message"]) == ("1", "later failed\n")
    assert ran.error["current_inputs"] == {}


def test_a_synchronous_error_while_another_node_is_parked() -> None:  # hard case 16
    bench = Bench()
    prompt = {
        "1": later(1, waits_for="never"),
        "2": node("Show", value=["1", 0]),
        "3": node("Const", n=1),
        "4": node("Fail", value=["3", 0]),
    }
    ran = bench.run(prompt)
    assert ran.result.state is JobState.FAILED
    assert ran.error["node_id"] == "4"
    assert "end 1" not in nodes.Later.log
    assert bench.run({"1": node("Show", value=1)}).result.state is JobState.SUCCEEDED


def test_a_job_that_only_waits_can_be_stopped() -> None:
    bench = Bench()
    stops = StopsItself()
    bench.executor.registry.add({"Stops": type(stops)}, module="tests")
    ran = bench.run({"1": node("Stops"), "2": node("Show", value=["1", 0])})
    assert ran.result.state is JobState.INTERRUPTED
    assert ran.of("execution_interrupted")[0]["node_id"] == "1"


class StopsItself:
    RETURN_TYPES, FUNCTION = ("INT",), "wait"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}

    async def wait(self) -> Any:
        import asyncio

        import comfy.control

        comfy.control.current().stop.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_asynchronous_node_cannot_tear_down_the_loop(error: type[BaseException]) -> None:
    class Exits(StopsItself):
        async def wait(self) -> Any:
            raise error("out")

    bench = Bench()
    bench.executor.registry.add({"Exits": Exits}, module="tests")
    ran = bench.run({"1": node("Exits"), "2": node("Show", value=["1", 0])})
    assert (ran.error["exception_type"], ran.error["exception_message"]) == (error.__name__, "out\n")


def test_asynchronous_hooks_are_awaited() -> None:
    class Hooks(nodes.Switch):
        @classmethod
        async def IS_CHANGED(cls, **kwargs: Any) -> int:
            return 1

        async def check_lazy_status(self, **kwargs: Any) -> list[str]:  # type: ignore[override]
            return ["a"]

    bench = Bench()
    bench.executor.registry.add({"Hooks": Hooks}, module="tests")
    prompt = {"1": node("Const", n=4), "3": node("Hooks", second=False, a=["1", 0], b=0), "4": node("Show", value=["3", 0])}
    assert texts(bench.run(prompt)) == {"4": [4]}
    assert bench.run(prompt).short[1] == "execution_cached ['1', '3', '4']"
