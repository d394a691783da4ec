import threading

import pytest
import torch

from comfy.config import Config
from comfy.device import context
from comfy.device.context import can_compute, current, current_or_none, lane_devices, make_contexts
from comfy.device.probe import Devices
from comfy.errors import ConfigError, OutsideLane
from comfy.weights.cache import WeightCache
from tests.fakes import cpu_context, in_threads


class Machine(Devices):
    """A machine with `gpus` that torch sees and a driver that says `driver`."""

    def __init__(self, gpus=0, driver=None, cuda="13.0"):
        self.gpus, self.driver, self.cuda = gpus, driver, cuda

    def cuda_count(self):
        return self.gpus

    def cuda_bytes(self, device):
        return 80 * 2**30 + device.index

    def torch_cuda(self):
        return self.cuda

    def nvidia_driver(self):
        return self.driver


CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("config", "machine", "expected"),
    [
        (Config(), Machine(), [CPU]),
        (Config(num_gpus=4), Machine(), [CPU]),
        (Config(multi_gpu=True), Machine(), [CPU, CPU]),
        (Config(multi_gpu=True, num_gpus=3), Machine(), [CPU] * 3),
        (Config(multi_gpu=True, cpu=True), Machine(4), [CPU, CPU]),
        (Config(cpu=True), Machine(0, "570.1"), [CPU]),
        (Config(), Machine(4), [torch.device("cuda:0")]),
        (Config(num_gpus=8), Machine(4), [torch.device("cuda:0")]),
        (Config(multi_gpu=True), Machine(3), [torch.device("cuda", index) for index in range(3)]),
        (Config(multi_gpu=True, num_gpus=2), Machine(3), [torch.device("cuda:0"), torch.device("cuda:1")]),
    ],
)
def test_lanes_are_the_gpus_or_cpu_lanes(config, machine, expected):
    assert lane_devices(config, machine) == expected


def test_more_gpus_than_there_are_end_the_start():
    with pytest.raises(ConfigError) as caught:
        lane_devices(Config(multi_gpu=True, num_gpus=5), Machine(4))
    assert caught.value.facts == {"num_gpus": 5, "visible": 4}


@pytest.mark.parametrize(("cuda", "remedy"), [(None, "CUDA build of torch"), ("13.0", "Update the driver")])
@pytest.mark.parametrize("multi_gpu", [True, False])
def test_gpus_that_torch_cannot_use_end_the_start_with_the_remedy(cuda, remedy, multi_gpu):
    with pytest.raises(ConfigError, match=remedy) as caught:
        lane_devices(Config(multi_gpu=multi_gpu), Machine(0, "535.54", cuda))
    assert "--cpu" in str(caught.value)
    assert caught.value.facts == {"driver_version": "535.54", "torch_version": torch.__version__, "torch_cuda": cuda}


def test_contexts_get_their_share_of_ram_or_their_gpus_memory():
    weights = WeightCache(1000)
    lanes = make_contexts(Config(multi_gpu=True), weights, Machine())
    assert [(lane.index, lane.device, lane.budget_bytes, lane.resident.budget_bytes) for lane in lanes] == [
        (0, CPU, 500, 500),
        (1, CPU, 500, 500),
    ]
    assert all(lane.weights is weights for lane in lanes)
    assert lanes[0].resident is not lanes[1].resident
    assert lanes[0].runner is not lanes[1].runner
    gpu = make_contexts(Config(multi_gpu=True), weights, Machine(2))[1]
    assert gpu.device == torch.device("cuda:1")
    assert gpu.budget_bytes == 79 * 2**30 + 1
    assert 0 < gpu.resident.budget_bytes < gpu.budget_bytes


def test_a_lane_knows_its_own_device_and_inference_mode():
    lanes = [cpu_context(index) for index in range(3)]

    def run(index):
        with lanes[index].activate() as ctx:
            return ctx is current() is current_or_none(), ctx.index, torch.is_inference_mode_enabled()

    assert in_threads(3, run) == [(True, index, True) for index in range(3)]
    assert current_or_none() is None
    assert not torch.is_inference_mode_enabled()


def test_leaving_restores_the_context_also_on_an_error():
    outer, inner = cpu_context(0), cpu_context(1)
    with outer.activate():
        with pytest.raises(ZeroDivisionError), inner.activate():
            raise ZeroDivisionError
        assert current() is outer
    assert current_or_none() is None


def test_outside_any_lane_the_question_is_a_typed_error():
    with cpu_context().activate():
        errors = []

        def ask():
            try:
                current()
            except OutsideLane as error:
                errors.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    assert len(errors) == 1


FP16, BF16, FP32, FP8 = torch.float16, torch.bfloat16, torch.float32, torch.float8_e4m3fn


@pytest.mark.parametrize(
    ("capability", "able"),
    [((9, 0), {FP16, BF16, FP32}), ((8, 0), {FP16, BF16, FP32}), ((7, 5), {FP16, FP32}), ((5, 2), {FP32})],
)
def test_what_a_gpu_computes_in(capability, able):
    assert {dtype for dtype in (FP16, BF16, FP32, FP8) if can_compute(dtype, capability)} == able


@pytest.mark.parametrize(
    ("capability", "supported", "expected"),
    [((9, 0), (BF16, FP16), BF16), ((7, 5), (BF16, FP16), FP16), ((7, 5), (BF16, FP32), FP32), ((7, 5), (BF16,), FP32)],
)
def test_the_first_dtype_that_the_gpu_can_do_is_taken(monkeypatch, capability, supported, expected):
    gpu = context.make_context(0, torch.device("cuda:0"), WeightCache(1), 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert gpu.run_dtype(supported) == expected


def test_a_cpu_computes_in_float32():
    assert cpu_context().run_dtype((FP16, BF16)) == FP32
