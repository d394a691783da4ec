"""Process-wide random generators for node packs that draw from them (contract: parallel-hazards.md items 31 to 34).

The core draws from private generators only. A pack's class with `USES_GLOBAL_RNG` runs under one lock, with the states
of its own executor swapped in: it sees the numbers of a process that runs nothing else.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Coroutine, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

_one_at_a_time = threading.RLock()  # re-entrant: a pack's node may call another node of a pack


@dataclass
class _States:
    python: Any
    numpy: Any
    torch_cpu: torch.Tensor
    torch_cuda: torch.Tensor | None  # of the calling thread's GPU; None until CUDA is in use


def _fresh() -> _States:
    # as at the start of a process: Python and NumPy from the system's entropy, torch from its fixed default seed
    return _States(random.Random().getstate(), np.random.RandomState().get_state(), torch.Generator().get_state(), None)


def _cuda_in_use() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_initialized()


def _read() -> _States:
    cuda = torch.cuda.get_rng_state() if _cuda_in_use() else None
    return _States(random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda)


def _write(states: _States) -> None:
    random.setstate(states.python)
    np.random.set_state(states.numpy)
    torch.set_rng_state(states.torch_cpu)
    if states.torch_cuda is not None and _cuda_in_use():
        torch.cuda.set_rng_state(states.torch_cuda)


class GlobalRng:
    """One executor's states of the process-wide generators, kept between its node calls."""

    def __init__(self) -> None:
        self._mine = _fresh()
        self._inside = False

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Hold the process's generators, set to this executor's states, for the `with` block."""
        with _one_at_a_time:
            if self._inside:
                yield
                return
            theirs = _read()
            _write(self._mine)
            self._inside = True
            try:
                yield
            finally:
                self._inside = False
                self._mine = _read()
                _write(theirs)


class Stepped:
    """Awaits a coroutine, swapping the generators in for each of its steps and out while it waits."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], rng: GlobalRng) -> None:
        self._coroutine = coroutine
        self._rng = rng

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._coroutine.__await__()
        pending: BaseException | None = None
        while True:
            with self._rng.swapped_in():
                try:
                    awaited = next(steps) if pending is None else steps.throw(pending)
                except StopIteration as done:
                    return done.value
            pending = None
            try:
                yield awaited
            except BaseException as error:
                pending = error
