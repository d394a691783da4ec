"""What NVIDIA's management library says of the GPUs: use, memory, temperature, power, links. Empty without it or without a GPU."""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class GpuReading:
    """One GPU at one moment; None for what it does not tell.

    utilization  share of the last second or so in which a kernel ran, 0 to 1
    memory       bytes, of all processes
    """

    utilization: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    link: str | None = None  #: "PCIe 5.0 x16, 18 NVLinks"


class GpuStats:
    """Reads GPUs through the package nvidia-ml-py, which is optional. Any thread may call."""

    def __init__(self, library: Any = None, uuid_of: Callable[[torch.device], str] | None = None) -> None:
        """Tests give another library, and names of GPUs that are not there."""
        self._given = library
        self._uuid_of = uuid_of or _uuid_of
        self._lock = threading.Lock()
        self._library: Any = None
        self._tried = False

    def read(self, device: torch.device) -> GpuReading | None:
        """A lane's GPU now; None for a CPU, and where the library or the driver is missing."""
        library = self._loaded() if device.type == "cuda" else None
        if library is None:
            return None
        with contextlib.suppress(library.NVMLError):
            handle = library.nvmlDeviceGetHandleByUUID(self._uuid_of(device))
            memory = _or_none(library, library.nvmlDeviceGetMemoryInfo, handle)
            rates = _or_none(library, library.nvmlDeviceGetUtilizationRates, handle)
            power_mw = _or_none(library, library.nvmlDeviceGetPowerUsage, handle)
            return GpuReading(
                utilization=None if rates is None else rates.gpu / 100,
                memory_used_bytes=None if memory is None else memory.used,
                memory_total_bytes=None if memory is None else memory.total,
                temperature_c=_or_none(library, library.nvmlDeviceGetTemperature, handle, library.NVML_TEMPERATURE_GPU),
                power_w=None if power_mw is None else power_mw / 1000,
                link=", ".join(_links(library, handle)) or None,
            )
        return None

    def _loaded(self) -> Any:
        """The library, initialised once; None when that cannot be done."""
        with self._lock:
            if not self._tried:
                self._tried = True
                with contextlib.suppress(ImportError):
                    library = self._given or importlib.import_module("pynvml")
                    with contextlib.suppress(library.NVMLError):
                        library.nvmlInit()
                        self._library = library
            return self._library


def _or_none(library: Any, ask: Callable[..., Any], *arguments: Any) -> Any:
    """The answer, None when this GPU does not tell (a MIG slice has no use, a laptop's no power)."""
    try:
        return ask(*arguments)
    except library.NVMLError:
        return None


def _links(library: Any, handle: Any) -> Iterator[str]:
    generation = _or_none(library, library.nvmlDeviceGetMaxPcieLinkGeneration, handle)
    width = _or_none(library, library.nvmlDeviceGetMaxPcieLinkWidth, handle)
    if generation and width:
        yield f"PCIe {generation}.0 x{width}"
    states = (_or_none(library, library.nvmlDeviceGetNvLinkState, handle, link) for link in range(library.NVML_NVLINK_MAX_LINKS))
    active = sum(state == 1 for state in states)
    if active:
        yield f"{active} NVLinks"


def _uuid_of(device: torch.device) -> str:
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    return uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
