"""Errors, interrupts, memory, secrets: what a job that ends badly leaves behind (execution.md section 16)."""

from __future__ import annotations

import gc
import json
import threading
import weakref
from typing import Any

import pytest
import torch

from comfy.errors import Interrupted, OutOfDeviceMemory
from comfy_execution.job import JobState
from tests.unit.execution import nodes
from tests.unit.execution.harness import Bench, node

GOOD = {"1": node("Show", value=1)}
BAD = {"1": node("Const", n=1), "2": node("Fail", value=["1", 0])}


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration])
def test_whatever_a_node_raises_fails_the_job_and_not_the_executor(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    monkeypatch.setattr(nodes.Fail, "error", error)
    bench = Bench()
    ran = bench.run(BAD)
    assert ran.result.state is JobState.FAILED
    assert (ran.error["exception_type"], ran.error["exception_message"]) == (error.__name__, "failed\n")
    assert ran.error["executed"] == ["1"]
    assert ran.result.messages[-1] == ("execution_error", ran.error)
    assert bench.run(GOOD).result.state is JobState.SUCCEEDED


def test_interrupted_from_a_node_is_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes.Fail, "error", Interrupted)
    ran = Bench().run(BAD)
    assert ran.result.state is JobState.INTERRUPTED
    assert ran.of("execution_error") == []


def test_a_job_that_was_stopped_before_it_began_runs_no_node() -> None:
    ran = Bench().run(BAD, stopped=True)
    assert ran.result.state is JobState.INTERRUPTED
    assert nodes.Const.made == []
    assert ran.short == ["execution_start", "execution_interrupted"]


def test_stop_is_seen_before_the_next_call_of_a_list() -> None:
    prompt = {
        "0": node("ToList", n=5, start=1),
        "1": node("Steps", steps=["0", 0], stop_at=2, preview=False),
        "2": node("Show", value=["1", 0]),
    }
    ran = Bench().run(prompt)
    assert nodes.Steps.done == [1, 1, 2]
    assert ran.result.state is JobState.INTERRUPTED


@pytest.mark.parametrize("error", [OutOfDeviceMemory, torch.cuda.OutOfMemoryError])
def test_out_of_memory_is_flagged_and_gets_tips(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    monkeypatch.setattr(nodes.Fail, "error", error)
    ran = Bench().run(BAD)
    assert ran.result.out_of_memory is True
    assert ran.result.state is JobState.FAILED
    assert "\nThe GPU has not enough free memory" in ran.error["exception_message"]
    assert Bench().run(GOOD).result.out_of_memory is False


@pytest.mark.parametrize(
    ("prompt", "outputs"),
    [
        ({"1": node("Kwargs", extra=["99", 0])}, ("1",)),
        ({"1": node("Show", value=["2", 0]), "2": node("Nope")}, ("1",)),
        ({"1": {"class_type": "Const"}}, ("1",)),
        ({"1": {"inputs": {}}}, ("1",)),
        ({"1": 5}, ("1",)),
        ({"1": {"class_type": "Show", "inputs": 5}}, ("1",)),
        (GOOD, ("7",)),
        ({}, ("7",)),
    ],
)
def test_a_poisoned_prompt_leaves_the_executor_usable(prompt: Any, outputs: tuple[str, ...]) -> None:
    bench = Bench()
    ran = bench.run(prompt, *outputs)
    assert ran.result.state is JobState.FAILED
    assert ran.error["exception_type"]
    assert ran.short[0] == "execution_start"
    assert ran.result.messages[-1][0] == "execution_error"
    assert bench.run(GOOD).result.state is JobState.SUCCEEDED


def test_a_link_to_nothing_blames_the_node_that_has_it() -> None:
    ran = Bench().run({"1": node("Show", value=["2", 0]), "2": node("Const", n=1, extra=["99", 0])})
    assert (ran.error["node_id"], ran.error["node_type"]) == ("2", "Const")
    assert ran.error["exception_type"] == "comfy_execution.graph.NodeNotFoundError"


def test_a_publisher_that_raises_does_not_break_the_job() -> None:
    bench = Bench()

    def broken(event: object) -> None:
        raise RuntimeError("no")

    bench.executor._publish_to = broken
    assert bench.run(GOOD).result.outputs == {"1": {"text": [1]}}


class Leaky:
    """Fails while holding something that can be watched."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "fail", True
    watched: Any = None

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {})}}

    def fail(self, value: int) -> Any:
        tensor = torch.zeros(4)
        type(self).watched = weakref.ref(tensor)
        raise ValueError(f"failed with {tensor.shape}")


class LeakyLater(Leaky):
    async def fail(self, value: int) -> Any:
        return super().fail(value)


@pytest.mark.parametrize("cls", [Leaky, LeakyLater])
def test_a_failed_job_holds_no_tensor_of_the_frames_it_passed(cls: Any) -> None:
    bench = Bench()
    bench.executor.registry.add({"Leaky": cls}, module="tests")
    gc.collect()
    gc.disable()  # lanes collect rarely: reference counting alone has to free it
    try:
        ran = bench.run({"1": node("Leaky", value=1)})
        assert ran.result.state is JobState.FAILED
        assert cls.watched() is None
    finally:
        gc.enable()


class Holder:
    """Expands into a node that gets a tensor as a literal."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE = ("INT",), "expand", True
    watched: Any = None

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}

    def expand(self) -> Any:
        tensor = torch.zeros(4)
        type(self).watched = weakref.ref(tensor)
        return {"result": (["x", 0],), "expand": {"x": node("Switch", second=False, a=1, b=tensor)}}


def test_the_graph_of_a_job_is_freed_with_it() -> None:
    bench = Bench()
    bench.executor.registry.add({"Holder": Holder}, module="tests")
    gc.collect()
    gc.disable()
    try:
        assert bench.run({"1": node("Holder")}).result.state is JobState.SUCCEEDED
        assert Holder.watched() is None
    finally:
        gc.enable()


def test_secrets_are_in_nothing_that_is_published(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    class Tell(nodes.Hidden):
        def show(self, token: str, **rest: Any) -> dict[str, Any]:  # type: ignore[override]
            if rest["value"] == "raise":
                raise ValueError(f"refused {token}")
            return {"ui": {"text": [token, {f"key {token}": 1}]}}

    bench = Bench()
    bench.executor.registry.add({"Tell": Tell}, module="tests")
    for value in ("raise", "show"):
        ran = bench.run({"1": node("Tell", value=value)}, secrets={"auth_token_comfy_org": "s3cret"})
        assert "s3cret" not in json.dumps([event.data for event in ran.events], default=str)
        assert "s3cret" not in repr(ran.result)
        if value == "raise":
            assert ran.error["exception_message"] == "refused ***\n"
            assert ran.error["current_inputs"]["token"] == ["***"]
    assert "s3cret" not in caplog.text


def test_a_traceback_names_no_folder_of_the_machine() -> None:
    lines = "".join(Bench().run(BAD).error["traceback"])
    assert 'File "tests/unit/execution/nodes.py"' in lines
    assert 'File "/' not in lines


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_inputs_without_text_do_not_hide_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes.Returns, "value", (Unprintable(), 1))
    ran = Bench().run({"1": node("Returns", key=1), "2": node("Fail", value=["1", 0])})
    assert ran.error["exception_message"] == "failed\n"
    assert "whose text cannot be made" in ran.error["current_inputs"]["value"][0]


def test_stopping_one_job_leaves_another_alone() -> None:  # hard case 18
    stopping = {"1": node("Steps", steps=5, stop_at=2, preview=False), "2": node("Show", value=["1", 0])}
    going = {"1": node("Steps", steps=5, stop_at=0, preview=False), "2": node("Show", value=["1", 0])}
    ended: dict[int, Any] = {}

    def work(index: int, prompt: Any) -> None:
        ended[index] = Bench(lane=index).run(prompt).result.state

    threads = [threading.Thread(target=work, args=(i, p)) for i, p in enumerate((stopping, going))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == {0: JobState.INTERRUPTED, 1: JobState.SUCCEEDED}
