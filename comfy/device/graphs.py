"""Captured forward passes of one lane: a CUDA graph per network and shape, replayed without Python.

Four threads that launch kernels from Python share one interpreter lock and gain nothing; four that replay graphs scale.
Measured: docs/architecture.md.

A graph reads its inputs from tensors of its own, which each replay fills, and its weights where they lie: so it is only
replayed for the very module that it was captured from, and dies with it.
"""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

MAX_GRAPHS = 8  #: captured passes that a lane keeps, least recently used out

Forward = Callable[[Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True)
class GraphStatistics:
    """Counters since the start, and how many graphs are held now."""

    captures: int = 0
    replays: int = 0
    refusals: int = 0
    held: int = 0


@dataclass(eq=False)
class _Pass:
    """One forward pass that was seen: captured from its second time on, unless it refuses."""

    network: weakref.ref[nn.Module]
    graph: torch.cuda.CUDAGraph | None = None
    inputs: dict[str, Tensor] = field(default_factory=dict)
    output: Tensor | None = None
    refused: bool = False


class GraphPool:
    """The graphs of one lane. Used by the lane's thread alone; `statistics()` may be asked from any thread.

    All graphs share one memory pool: a pass's output is copied out before the next replay may overwrite it.
    """

    def __init__(self, device: torch.device, max_graphs: int = MAX_GRAPHS) -> None:
        self._device = device
        self._max_graphs = max_graphs
        self._passes: OrderedDict[Hashable, _Pass] = OrderedDict()
        self._stream: torch.cuda.Stream | None = None
        self._memory: Any = None
        self._captures = self._replays = self._refusals = 0

    def run(self, key: Hashable, network: nn.Module, inputs: Mapping[str, Tensor], forward: Forward) -> Tensor:
        """`forward(inputs)`: eagerly the first time, captured the second, replayed from then on.

        key     equal keys mean equal code, and inputs of equal names and layout; `layout_of(inputs)` belongs in it
        inputs  every tensor that differs from call to call
        Returns a tensor of the caller's own.
        """
        place = (key, id(network))
        known = self._passes.get(place)
        if known is None or known.network() is not network:
            self._remember(place, network)
            return forward(inputs)
        self._passes.move_to_end(place)
        if known.refused:
            return forward(inputs)
        if known.graph is None and not self._capture(known, inputs, forward):
            return forward(inputs)
        return self._replay(known, inputs)

    def clear(self) -> None:
        """Drop every graph, and with the last one their memory pool: it must not be captured into again."""
        self._passes.clear()
        self._memory = None

    def statistics(self) -> GraphStatistics:
        """Any thread may ask."""
        held = sum(one.graph is not None for one in list(self._passes.values()))
        return GraphStatistics(self._captures, self._replays, self._refusals, held)

    def _remember(self, place: Hashable, network: nn.Module) -> None:
        dead = [other for other, one in self._passes.items() if one.network() is None]
        for other in dead:
            del self._passes[other]
        while len(self._passes) >= self._max_graphs:
            self._passes.popitem(last=False)
        if not any(one.graph is not None for one in self._passes.values()):
            self._memory = None
        self._passes[place] = _Pass(weakref.ref(network))

    def _replay(self, one: _Pass, inputs: Mapping[str, Tensor]) -> Tensor:
        assert one.graph is not None
        assert one.output is not None
        for name, tensor in inputs.items():
            one.inputs[name].copy_(tensor)
        one.graph.replay()
        self._replays += 1
        return one.output.clone()

    def _capture(self, one: _Pass, inputs: Mapping[str, Tensor], forward: Forward) -> bool:
        """Record `forward` into a graph; False, and never tried again, when it cannot be recorded.

        Nothing runs while it is recorded. Other lanes work on: only this thread's calls are part of the capture.
        """
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)
        if self._memory is None:
            self._memory = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        static = {name: torch.empty_like(tensor).copy_(tensor) for name, tensor in inputs.items()}
        try:
            with self._own_generator(), torch.cuda.stream(self._stream):
                self._stream.wait_stream(torch.cuda.default_stream(self._device))
                graph.capture_begin(pool=self._memory, capture_error_mode="thread_local")
                try:
                    output = forward(static)
                finally:
                    graph.capture_end()
        except Exception as error:
            self._give_up(one, error)
            return False
        one.graph, one.inputs, one.output = graph, static, output
        self._captures += 1
        return True

    @contextlib.contextmanager
    def _own_generator(self) -> Any:
        """Capture marks the device's generator; a throwaway state takes the mark, so that a failed capture leaves none."""
        generator = torch.cuda.default_generators[self._device.index]
        state = generator.graphsafe_get_state()
        generator.graphsafe_set_state(generator.clone_state())
        try:
            yield
        finally:
            generator.graphsafe_set_state(state)

    def _give_up(self, one: _Pass, error: Exception) -> None:
        one.refused = True
        self._refusals += 1
        log.warning(
            "[%s] a network cannot be captured in a CUDA graph and runs eagerly: %s: %s",
            self._device,
            type(error).__name__,
            str(error).splitlines()[0] if str(error) else "",
        )
        with contextlib.suppress(Exception):  # what the capture left open in the allocator; fails when nothing is
            torch._C._cuda_endAllocateToPool(self._device.index, self._memory)
        self._memory = self._stream = None  # a pool and a stream that a capture died in are not used again


def layout_of(inputs: Mapping[str, Tensor]) -> Hashable:
    """Names, shapes, strides and dtypes of tensors, hashable."""
    return tuple((name, tuple(tensor.shape), tensor.stride(), tensor.dtype) for name, tensor in inputs.items())
