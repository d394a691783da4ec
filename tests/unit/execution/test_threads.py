"""Four executors in four threads, as four lanes are (parallel-hazards.md items 4, 6, 12, 16, 31 to 34)."""

from __future__ import annotations

import random
from collections.abc import Callable
from threading import Barrier, Thread
from typing import Any

import numpy as np
import torch

from comfy_execution.job import JobState
from tests.unit.execution.harness import Bench, Ran, node, texts

LANES = 4


def on_all_lanes(work: Callable[[int], Any]) -> list[Any]:
    """Give each lane its thread, let them start together, and return what each gave; an error in one is raised here."""
    together = Barrier(LANES)
    results: list[Any] = [None] * LANES

    def lane(index: int) -> None:
        together.wait()
        try:
            results[index] = work(index)
        except BaseException as error:
            results[index] = error

    threads = [Thread(target=lane, args=(index,)) for index in range(LANES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def test_expanding_on_all_lanes_at_once_gives_each_its_own_ids() -> None:
    def work(lane: int) -> list[Ran]:
        bench = Bench(lane=lane)
        prompts = ({f"{lane}x{i}": node("Expand", value=i, n=lane), "s": node("Show", value=[f"{lane}x{i}", 0])} for i in range(25))
        return [bench.run(prompt) for prompt in prompts]

    for lane, runs in enumerate(on_all_lanes(work)):
        for i, ran in enumerate(runs):
            assert ran.result.state is JobState.SUCCEEDED, ran.result.messages
            assert texts(ran)["s"] == [lane + i]
            inner = {data["node"] for data in ran.of("executing")} - {f"{lane}x{i}", "s"}
            assert inner <= {f"{lane}x{i}.0.0.{k}" for k in (1, 2, 3)}
            states = ran.of("progress_state")[-1]["nodes"]
            assert {state["real_node_id"] for state in states.values()} == {f"{lane}x{i}", "s"}
            assert {event.lane for event in ran.events} == {lane}


def test_packs_draw_the_numbers_of_a_process_alone() -> None:
    def alone(seed: int) -> list[list[float]]:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        return [[random.random(), float(np.random.rand()), float(torch.rand(1))] for _ in range(2)]

    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        expected = [alone(seed) for seed in range(LANES)]
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])

    def work(lane: int) -> list[Any]:
        bench, drawn = Bench(lane=lane), []
        for turn in range(20):
            first = bench.run({"1": node("Draws", seed=lane, again=False, turn=turn)})
            second = bench.run({"2": node("Draws", seed=lane, again=True, turn=turn)})
            drawn.append([first.result.outputs["1"]["drawn"], second.result.outputs["2"]["drawn"]])
        return drawn

    for lane, drawn in enumerate(on_all_lanes(work)):
        assert drawn == [expected[lane]] * 20


def test_an_asynchronous_pack_node_keeps_its_stream_over_its_waits() -> None:
    def work(lane: int) -> Any:
        return Bench(lane=lane).run({"1": node("DrawsLater", seed=lane, again=False)}).result.outputs["1"]["drawn"]

    for lane, drawn in enumerate(on_all_lanes(work)):
        alone = random.Random(lane)
        assert drawn == [alone.random() for _ in range(5)]


def test_the_process_keeps_its_own_generators() -> None:
    before = random.getstate(), torch.get_rng_state()
    Bench().run({"1": node("Draws", seed=3, again=False)})
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_a_poisoned_prompt_on_each_lane_leaves_them_all_serving() -> None:
    def work(lane: int) -> tuple[JobState, JobState]:
        bench = Bench(lane=lane)
        bad = bench.run({"1": node("Kwargs", extra=["99", 0])})
        return bad.result.state, bench.run({"1": node("Show", value=lane)}).result.state

    assert on_all_lanes(work) == [(JobState.FAILED, JobState.SUCCEEDED)] * LANES


def test_nodes_run_in_inference_mode() -> None:
    class Mode:
        RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "tell", True

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:
            return {"required": {}}

        def tell(self) -> dict[str, Any]:
            return {"ui": {"text": [torch.is_inference_mode_enabled()]}}

    bench = Bench()
    bench.executor.registry.add({"Mode": Mode}, module="tests")
    assert texts(bench.run({"1": node("Mode")})) == {"1": [True]}
    assert not torch.is_inference_mode_enabled()
