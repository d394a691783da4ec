"""GPUs as the driver's library tells of them, by a double of it; and the table of the start."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from comfy.config import Config
from comfy.device import summary
from comfy.device.context import make_contexts
from comfy.device.gpu_stats import GpuReading, GpuStats
from comfy.weights.cache import WeightCache

CUDA = torch.device("cuda", 0)


class FakeNvml:
    """The library's functions that we call; `silent` are those that this GPU does not know."""

    class NVMLError(Exception):
        pass

    NVML_TEMPERATURE_GPU, NVML_NVLINK_MAX_LINKS = 0, 4

    def __init__(self, *silent: str, broken: bool = False) -> None:
        self.silent, self.broken, self.inits = silent, broken, 0

    def nvmlInit(self) -> None:
        self.inits += 1
        if self.broken:
            raise self.NVMLError

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return self._told("nvmlDeviceGetHandleByUUID", uuid)

    def __getattr__(self, name: str) -> Any:
        values = {
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=3, total=8),
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=25),
            "nvmlDeviceGetPowerUsage": 350_500,
            "nvmlDeviceGetTemperature": 61,
            "nvmlDeviceGetMaxPcieLinkGeneration": 5,
            "nvmlDeviceGetMaxPcieLinkWidth": 16,
            "nvmlDeviceGetNvLinkState": 1,
        }
        return lambda *arguments: self._told(name, values[name])

    def _told(self, name: str, value: Any) -> Any:
        if name in self.silent:
            raise self.NVMLError
        return value


def stats(library: FakeNvml) -> GpuStats:
    return GpuStats(library, uuid_of=lambda device: f"GPU-{device.index}")


def test_a_gpu_tells_everything() -> None:
    library = FakeNvml()
    asked = stats(library)
    assert asked.read(CUDA) == asked.read(CUDA) == GpuReading(0.25, 3, 8, 61, 350.5, "PCIe 5.0 x16, 4 NVLinks")
    assert library.inits == 1


@pytest.mark.parametrize(
    ("silent", "field"),
    [
        ("nvmlDeviceGetMemoryInfo", "memory_used_bytes"),
        ("nvmlDeviceGetUtilizationRates", "utilization"),
        ("nvmlDeviceGetPowerUsage", "power_w"),
        ("nvmlDeviceGetTemperature", "temperature_c"),
    ],
)
def test_what_a_gpu_does_not_tell_is_left_out(silent: str, field: str) -> None:
    reading = stats(FakeNvml(silent)).read(CUDA)
    assert reading is not None
    assert getattr(reading, field) is None
    assert reading.link == "PCIe 5.0 x16, 4 NVLinks"


def test_without_a_driver_or_for_a_cpu_there_is_nothing() -> None:
    assert stats(FakeNvml(broken=True)).read(CUDA) is None
    assert stats(FakeNvml("nvmlDeviceGetHandleByUUID")).read(CUDA) is None
    assert stats(FakeNvml()).read(torch.device("cpu")) is None


def test_the_start_shows_a_line_for_each_lane() -> None:
    contexts = make_contexts(Config(cpu=True, multi_gpu=True, num_gpus=3), WeightCache(3 * 1024**3))
    lines = summary.table(summary.lane_rows(contexts, GpuStats()))
    assert lines[0].split() == ["lane", "device", "name", "memory", "for", "weights", "link"]
    assert [line.split()[:2] for line in lines[1:]] == [["0", "cpu"], ["1", "cpu"], ["2", "cpu"]]
    assert all(line.endswith("1.0 GiB  1.0 GiB      -") for line in lines[1:])
