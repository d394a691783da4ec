"""Tensors of adapter files, named instead of held: a handle with a LoRA pickles without its weights, and lanes share one read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from comfy.device import context
from comfy.errors import WeightFileInvalid
from comfy.weights.files import FileIdentity
from comfy.weights.header import open_index
from comfy.weights.plan import SlabEntry, SlabKey
from comfy.weights.slab import Slab

COMPONENT = "lora"


@dataclass(frozen=True)
class FileTensor:
    """A tensor of a small weight file. Its bytes are read, with the whole file, when a lane first asks for any of them."""

    file: FileIdentity
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def tensor(self) -> Tensor:
        """The tensor on the CPU as stored: a view of the shared slab, never to be written to. Raises OutsideLane, WeightFileInvalid."""
        held = _held.get()
        if held is not None:
            return held.slab(self.file).tensor(self.name)
        with holding(), torch.inference_mode(False):
            return self.tensor()


def file_tensors(path: str) -> dict[str, FileTensor]:
    """Every tensor of the file `path` by name. Only the header is read. Raises WeightFileMissing or WeightFileInvalid."""
    index = open_index(path)
    return {name: FileTensor(index.identity, name, info.shape, info.dtype) for name, info in index.tensors.items()}


@contextmanager
def holding() -> Iterator[None]:
    """Keep the files whose tensors are asked for inside the `with` block in RAM until its end: each is read at most once."""
    if _held.get() is not None:
        yield
        return
    with ExitStack() as stack:
        token = _held.set(_Held(stack))
        try:
            yield
        finally:
            _held.reset(token)


def plain(value: Any, like: Tensor | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """`value` (a tensor, something with `.tensor()`, or a number) as a tensor, on the device of `like` and in `dtype` if given."""
    found = value.tensor() if hasattr(value, "tensor") else value if isinstance(value, Tensor) else torch.tensor(value)
    if like is None:
        return found
    result: Tensor = found.to(device=like.device, dtype=dtype or found.dtype)
    return result


class _Held:
    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._slabs: dict[FileIdentity, Slab] = {}

    def slab(self, file: FileIdentity) -> Slab:
        if file not in self._slabs:
            lease = context.current().weights.lease(SlabKey(file, COMPONENT), lambda: _entries(file))
            self._slabs[file] = self._stack.enter_context(lease)
        return self._slabs[file]


def _entries(file: FileIdentity) -> list[SlabEntry]:
    index = open_index(file.path)
    if index.identity != file:
        raise WeightFileInvalid("It was replaced since it was loaded; run the prompt again.", file=file.name)
    return [SlabEntry(name, info, info.dtype) for name, info in index.tensors.items()]


_held: ContextVar[_Held | None] = ContextVar("comfy_lora_files", default=None)
