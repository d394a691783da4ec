"""The bookkeeping of captured passes, with a capture that needs no GPU; tests/gpu/test_graphs_on_a_gpu.py shows the real one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from comfy import replaceable
from comfy.device.graphs import GraphPool, layout_of
from comfy.device.runner import DenoiserRunner


class FakeGraph:
    """Replays by calling the recorded function on the static inputs."""

    def __init__(self, one: Any, forward: Any) -> None:
        self.one, self.forward = one, forward

    def replay(self) -> None:
        self.one.output.copy_(self.forward(self.one.inputs))


class FakePool(GraphPool):
    """Captures without CUDA."""

    def _capture(self, one: Any, inputs: Any, forward: Any) -> bool:
        if self.fails:
            self._give_up(one, RuntimeError("not permitted while capturing"))
            return False
        one.inputs = {name: tensor.clone() for name, tensor in inputs.items()}
        one.output = forward(one.inputs)
        one.graph = FakeGraph(one, forward)
        self._memory = self._memory or object()
        self._captures += 1
        return True

    fails = False


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[dict[str, Any]] = []

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor | None, **given: Any) -> Tensor:
        self.calls.append(given)
        out = x * timesteps.view(-1, 1)
        for values in (given.get("control") or {}).values():
            for value in values:
                out = out if value is None else out + value
        return out + given.get("guidance", 0) + (0 if context is None else context.mean())


def run(runner: DenoiserRunner, net: Net, value: float, key: str = "a", **given: Any) -> Tensor:
    shape = given.pop("shape", (2, 3))
    return runner.run(net, key, torch.full(shape, value), torch.full((shape[0],), 2.0), torch.ones(1, 4, 8), **given)


@pytest.fixture
def pool() -> FakePool:
    return FakePool(torch.device("cpu"), max_graphs=3)


def test_first_eager_then_captured_then_replayed_with_new_inputs(pool: FakePool) -> None:
    runner, net = DenoiserRunner(pool), Net()
    results = [run(runner, net, float(i)) for i in range(4)]
    for i, result in enumerate(results):
        assert torch.equal(result, torch.full((2, 3), 2.0 * i + 1))  # none overwritten by a later replay
    statistics = runner.statistics()
    assert (statistics.calls, statistics.graphs.captures, statistics.graphs.replays) == (4, 1, 3)


def test_other_shapes_keys_and_arguments_are_other_graphs(pool: FakePool) -> None:
    pool._max_graphs = 99
    runner, net = DenoiserRunner(pool), Net()
    control = {"output": [torch.ones(2, 3), None]}
    variants: list[dict[str, Any]] = [
        {},
        {"shape": (1, 3)},
        {"key": "b"},
        {"extra": {"guidance": 3.5}},
        {"extra": {"guidance": torch.tensor(3.5)}},
        {"control": control},
        {"y": torch.ones(2, 8)},
    ]
    for _ in range(3):
        for given in variants:
            expected = run(DenoiserRunner(), Net(), 5.0, **given)
            assert torch.equal(run(runner, net, 5.0, **given), expected)
    assert runner.statistics().graphs.captures == len(variants)


def test_new_residuals_and_vectors_reach_a_replay(pool: FakePool) -> None:
    runner, net = DenoiserRunner(pool), Net()
    for value in (1.0, 2.0, 3.0, 4.0):
        got = run(runner, net, 1.0, control={"output": [None, torch.full((2, 3), value)]}, extra={"guidance": torch.tensor(value)})
        assert torch.equal(got, torch.full((2, 3), 2.0 + value + value + 1.0))
    assert runner.statistics().graphs.replays == 3


@pytest.mark.parametrize("group", ["patches", "patches_replace"])
def test_a_model_with_patches_runs_eagerly(pool: FakePool, group: str) -> None:
    runner, net = DenoiserRunner(pool), Net()
    for _ in range(3):
        run(runner, net, 1.0, options={group: {"attn1_patch": [lambda *a: a]}})
    assert runner.statistics().graphs.captures == 0
    for _ in range(3):
        run(runner, net, 1.0, options={group: {"attn1_patch": []}, "cond_or_uncond": [0, 1]})
    assert runner.statistics().graphs.captures == 1


def test_a_hooked_module_runs_eagerly(pool: FakePool) -> None:
    runner, net = DenoiserRunner(pool), Net()
    net.register_forward_hook(lambda *a: None)
    for _ in range(3):
        run(runner, net, 1.0)
    assert runner.statistics().graphs.captures == 0


@pytest.fixture
def inner_name() -> Iterator[Any]:
    module = ModuleType("comfy.ldm.test_inner")

    @replaceable.replaceable("comfy.ldm.test_inner.step")
    def step() -> None: ...

    module.step = step  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    replaceable.write_through(module.__name__)
    yield module
    module.step = step  # type: ignore[attr-defined]
    del sys.modules[module.__name__]


def test_a_replaced_function_inside_networks_keeps_them_eager_while_it_stands(pool: FakePool, inner_name: Any) -> None:
    runner, net, original = DenoiserRunner(pool), Net(), inner_name.step
    inner_name.step = lambda: None
    for _ in range(3):
        run(runner, net, 1.0)
    assert runner.statistics().graphs.captures == 0
    inner_name.step = original
    for _ in range(2):
        run(runner, net, 1.0)
    assert runner.statistics().graphs.captures == 1


def test_a_pass_that_cannot_be_captured_runs_eagerly_and_says_so_once(pool: FakePool, caplog: pytest.LogCaptureFixture) -> None:
    pool.fails = True
    runner, net = DenoiserRunner(pool), Net()
    for value in (1.0, 2.0, 3.0):
        assert torch.equal(run(runner, net, value), torch.full((2, 3), 2 * value + 1))
    assert caplog.text.count("cannot be captured") == 1
    assert runner.statistics().graphs.refusals == 1


def test_least_recently_used_graphs_go(pool: FakePool) -> None:
    runner, net = DenoiserRunner(pool), Net()
    for key in "abc":
        run(runner, net, 1.0, key)
        run(runner, net, 1.0, key)
    run(runner, net, 1.0, "a")
    run(runner, net, 1.0, "d")  # b goes
    captures = runner.statistics().graphs.captures
    run(runner, net, 1.0, "a")
    assert runner.statistics().graphs.captures == captures
    run(runner, net, 1.0, "b")  # eager: first seen again
    assert runner.statistics().graphs.captures == captures


def test_a_graph_dies_with_its_module_and_is_never_replayed_for_another(pool: FakePool) -> None:
    runner = DenoiserRunner(pool)
    net = Net()
    for _ in range(3):
        run(runner, net, 1.0)
    for one in pool._passes.values():
        one.graph.forward = None  # a real graph holds no module
    del net
    other = Net()
    result = run(runner, other, 2.0)
    assert torch.equal(result, torch.full((2, 3), 5.0))
    assert len(other.calls) == 1
    assert runner.statistics().graphs.held == 0


def test_a_pool_without_graphs_gets_fresh_memory(pool: FakePool) -> None:
    runner, net = DenoiserRunner(pool), Net()
    for _ in range(2):
        run(runner, net, 1.0)
    assert pool._memory is not None
    runner.clear()
    assert pool._memory is None
    assert runner.statistics().graphs.held == 0


def test_the_layout_tells_strides_apart() -> None:
    x = torch.ones(2, 3, 4, 4)
    assert layout_of({"x": x}) != layout_of({"x": x.to(memory_format=torch.channels_last)})
    assert layout_of({"x": x}) != layout_of({"x": x.half()})
