"""One lane's device as a value: what it is, what is on it, how its networks are run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

import torch

from comfy.config import Config
from comfy.device.graphs import GraphPool
from comfy.device.page_lock import PageLocker
from comfy.device.probe import Devices
from comfy.device.resident import ResidentModels
from comfy.device.runner import DenoiserRunner
from comfy.errors import ConfigError, OutsideLane
from comfy.units import GIB
from comfy.weights.cache import WeightCache

#: of a GPU's memory: for the CUDA context, libraries and the display
RESERVED_BYTES = GIB
#: of the rest: what weights may take; activations need the remainder
RESIDENT_SHARE = 0.8


@dataclass(eq=False)
class DeviceContext:
    """One device as its lane sees it: used by exactly one thread, so it has no lock.

    index         the lane's number
    device        always indexed: cuda:3; or cpu
    budget_bytes  weights and activations together
    """

    index: int
    device: torch.device
    weights: WeightCache
    budget_bytes: int
    resident: ResidentModels
    runner: DenoiserRunner = field(default_factory=DenoiserRunner)
    #: the MODELs that sampling brought here, as long as someone has them: what custom nodes list
    handles: WeakSet[Any] = field(default_factory=WeakSet)

    @contextmanager
    def activate(self) -> Iterator[DeviceContext]:
        """Make this the calling thread's device, in inference mode. A lane's thread enters it once, for life."""
        token = _current.set(self)
        try:
            with torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext(), torch.inference_mode():
                yield self
        finally:
            _current.reset(token)

    def run_dtype(self, supported: Sequence[torch.dtype]) -> torch.dtype:
        """The dtype in which a model with these dtypes, best first, runs here: float32 on a CPU."""
        if self.device.type == "cpu":
            return torch.float32
        capability = torch.cuda.get_device_capability(self.device)
        return next((dtype for dtype in supported if can_compute(dtype, capability)), torch.float32)

    def unload(self) -> None:
        """Drop every model that no one uses from the device, and all captured graphs."""
        self.runner.clear()
        self.resident.free()
        for handle in list(self.handles):
            handle.leave_device()

    def holds(self) -> frozenset[str]:
        """Names of the model files on the device. Any thread may ask."""
        return self.resident.holds()


_current: ContextVar[DeviceContext | None] = ContextVar("comfy_device_context", default=None)


def current() -> DeviceContext:
    """The calling lane's device. Raises OutsideLane in a thread that belongs to none."""
    context = _current.get()
    if context is None:
        raise OutsideLane
    return context


def current_or_none() -> DeviceContext | None:
    """The calling lane's device, or None outside any lane."""
    return _current.get()


def can_compute(dtype: torch.dtype, capability: tuple[int, int]) -> bool:
    """Whether a GPU of this CUDA compute capability does arithmetic in `dtype` at speed."""
    if dtype == torch.bfloat16:
        return capability >= (8, 0)
    if dtype == torch.float16:
        return capability >= (5, 3)
    return dtype == torch.float32


def lane_devices(config: Config, devices: Devices | None = None) -> list[torch.device]:
    """The device of each lane, in order; one lane when the gate is off.

    Without a GPU, or with --cpu, lanes run on the CPU: two, unless told otherwise. Raises ConfigError when there are
    fewer GPUs than asked for, and when the machine has NVIDIA GPUs that torch cannot use.
    """
    devices = devices or Devices()
    count = 0 if config.cpu else devices.cuda_count()
    if count == 0:
        if not config.cpu:
            _refuse_idle_gpus(devices)
        return [torch.device("cpu")] * ((config.num_gpus or 2) if config.multi_gpu else 1)
    wanted = (config.num_gpus or count) if config.multi_gpu else 1
    if wanted > count:
        raise ConfigError("--num-gpus (COMFY_NUM_GPUS) is more than torch sees.", num_gpus=wanted, visible=count)
    return [torch.device("cuda", index) for index in range(wanted)]


def _refuse_idle_gpus(devices: Devices) -> None:
    driver = devices.nvidia_driver()
    if driver is None:
        return
    if devices.torch_cuda() is None:
        remedy = "This torch is built without CUDA: install a CUDA build of torch, or start with --cpu."
    else:
        remedy = "Update the driver, install a torch for this driver's CUDA, or let CUDA_VISIBLE_DEVICES name a GPU; or start with --cpu."
    raise ConfigError(
        f"This machine has NVIDIA GPUs, but torch sees none. {remedy}",
        driver_version=driver,
        torch_version=torch.__version__,
        torch_cuda=devices.torch_cuda(),
    )


def make_contexts(config: Config, weights: WeightCache, devices: Devices | None = None) -> list[DeviceContext]:
    """A DeviceContext for each lane of `lane_devices()`. Raises ConfigError as that does."""
    devices = devices or Devices()
    found = lane_devices(config, devices)
    if any(device.type == "cuda" for device in found):
        weights.lock_pages = PageLocker()
    return [
        make_context(index, device, weights, _budget(device, weights, len(found), devices), graphs=config.cuda_graphs)
        for index, device in enumerate(found)
    ]


def make_context(index: int, device: torch.device, weights: WeightCache, budget_bytes: int, *, graphs: bool = True) -> DeviceContext:
    """One DeviceContext with nothing on it. On a CPU the whole budget is for weights: they are views of the slabs.

    graphs  run denoisers as CUDA graphs, where there is CUDA
    """
    share = 1.0 if device.type == "cpu" else RESIDENT_SHARE
    resident = ResidentModels(device, int(budget_bytes * share), weights)
    runner = DenoiserRunner(GraphPool(device) if graphs and device.type == "cuda" else None)
    return DeviceContext(index, device, weights, budget_bytes, resident, runner)


def _budget(device: torch.device, weights: WeightCache, lanes: int, devices: Devices) -> int:
    """CPU lanes hold slabs in RAM while models are resident: together no more than the cache may keep."""
    if device.type == "cpu":
        return weights.capacity_bytes // lanes
    return max(devices.cuda_bytes(device) - RESERVED_BYTES, 0)
