"""Doubles and small helpers that tests of several areas share: no GPU, no network, no clock of the machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file

from comfy.device.context import DeviceContext, make_context
from comfy.weights.cache import WeightCache
from comfy.weights.header import FileIndex, open_index
from comfy.weights.slab import SlabEntry, SlabKey

T = TypeVar("T")

#: no test waits longer for a thread than this; a wait that ends here is a failure
PATIENCE_S = 60.0


class ManualClock:
    """A clock that moves when it is told to."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def in_threads(count: int, function: Callable[[int], T]) -> list[T]:
    """Call `function(0)` … `function(count - 1)` in a thread each; their results in order, or the first error of any."""
    results: list[Any] = [None] * count
    errors: list[BaseException] = []

    def call(index: int) -> None:
        try:
            results[index] = function(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=call, args=(index,), daemon=True) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]
    return results


def make_file(path: Path, tensors: Mapping[str, torch.Tensor] | None = None, metadata: dict[str, str] | None = None) -> Path:
    """A valid safetensors file; without `tensors` it holds one float32 matrix `weight`."""
    tensors = {"weight": torch.arange(6.0).view(2, 3)} if tensors is None else tensors
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path, metadata)  # the writer refuses shared memory
    return path


def make_raw_file(path: Path, header: Mapping[str, Any] | bytes, data: bytes = b"", header_bytes: int | None = None) -> Path:
    """A file laid out like safetensors whose header may lie; `header_bytes` is the length that it claims."""
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(encoded) if header_bytes is None else header_bytes
    path.write_bytes(length.to_bytes(8, "little") + encoded + data)
    return path


def entries_of(index: FileIndex, dtype: torch.dtype | None = None) -> list[SlabEntry]:
    """Every tensor of a file under its own name, in `dtype` or as stored."""
    return [SlabEntry(name, info, dtype or info.dtype) for name, info in index.tensors.items()]


def key_of(path: Path, component: str = "denoiser", dtype: str | None = None) -> SlabKey:
    """The slab key of a whole file as it is now."""
    return SlabKey(open_index(path).identity, component, dtype)


def cpu_context(index: int = 0, weights: WeightCache | None = None, budget_bytes: int = 2**30) -> DeviceContext:
    """A lane's device on the CPU, with a weight cache of its own when none is given."""
    return make_context(index, torch.device("cpu"), weights or WeightCache(2**30), budget_bytes)
