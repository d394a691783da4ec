"""CUDA graphs for real: same bytes as eager, a failed capture harms nothing, capturing beside working lanes.

python3 -m pytest tests/gpu
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from comfy.device.context import DeviceContext, make_context
from comfy.device.graphs import GraphPool
from comfy.device.runner import DenoiserRunner
from comfy.units import GIB
from comfy.weights.cache import WeightCache
from tests.fakes import in_threads
from tests.gpu.test_lanes_on_gpus import picture
from tests.make_checkpoint import make_sd1_checkpoint

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sd1_checkpoint(tmp_path_factory.mktemp("graphs") / "small.safetensors", width=64, context=128, vae_ch=32)


def context_of(index: int, *, graphs: bool) -> DeviceContext:
    return make_context(index, torch.device("cuda", index), WeightCache(4 * GIB), 8 * GIB, graphs=graphs)


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m"])
def test_eager_captured_and_replayed_pictures_have_the_same_bytes(checkpoint: Path, sampler: str) -> None:
    eager = picture(context_of(0, graphs=False), checkpoint, sampler)
    lane = context_of(0, graphs=True)
    first = picture(lane, checkpoint, sampler)  # one eager step, then capture and replays
    second = picture(lane, checkpoint, sampler)  # replays only
    statistics = lane.runner.statistics().graphs
    assert statistics.captures == 1
    assert statistics.replays == 2 * 4 - 1
    assert torch.equal(first, second)
    assert torch.equal(eager, first)


class Waits(nn.Module):
    """Asks the device for a number in mid-pass: that cannot be captured."""

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor | None, **given: object) -> Tensor:
        return x * float(x.sum())


class Fine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 64)

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor | None, **given: object) -> Tensor:
        return self.layer(x) + timesteps.view(-1, 1)


def test_a_failed_capture_leaves_generator_allocator_and_later_captures_whole() -> None:
    device = torch.device("cuda", 0)
    runner = DenoiserRunner(GraphPool(device))
    with torch.inference_mode():
        fine = Fine().to(device)
        x, t = torch.ones(4, 64, device=device), torch.ones(4, device=device)
        waits = Waits()
        for _ in range(3):
            assert torch.equal(runner.run(waits, "waits", x, t, None), x * 256)
        assert runner.statistics().graphs.refusals == 1
        torch.randn(8, device=device)  # raises while the generator believes that it is captured
        for value in (1.0, 2.0, 3.0):
            assert torch.equal(runner.run(fine, "fine", x * value, t * value, None), fine(x * value, t * value, None))
        assert runner.statistics().graphs.replays == 2
        runner.clear()
        for value in (1.0, 2.0, 3.0):
            assert torch.equal(runner.run(fine, "fine", x * value, t * value, None), fine(x * value, t * value, None))


def test_graphs_give_their_memory_back() -> None:
    device = torch.device("cuda", 0)
    runner = DenoiserRunner(GraphPool(device))
    with torch.inference_mode():
        fine = Fine().to(device)
        x, t = torch.ones(1 << 16, 64, device=device), torch.ones(1 << 16, device=device)
        sizes = []
        for _ in range(6):
            for _ in range(3):
                runner.run(fine, "fine", x, t, None)
            runner.clear()
            torch.cuda.synchronize(device)
            sizes.append(torch.cuda.memory_allocated(device))
        assert max(sizes[2:]) <= sizes[1]


def test_lanes_capture_while_others_work(checkpoint: Path) -> None:
    count = torch.cuda.device_count()
    lanes = [context_of(i, graphs=True) for i in range(count)]
    expected = picture(context_of(0, graphs=False), checkpoint)

    def work(index: int) -> list[Tensor]:
        made = []
        for _ in range(3):
            made += [picture(lanes[index], checkpoint) for _ in range(2)]
            with lanes[index].activate():
                lanes[index].unload()  # and so captures again
        return made

    for images in in_threads(count, work):
        for image in images:
            assert torch.equal(image, expected)
    assert all(lane.runner.statistics().graphs.captures == 3 for lane in lanes)
