"""One training step, repeated: optimizer, learning rate, running average, and on a GPU a CUDA graph of the whole step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tools.starter_model.networks import Weights

#: name -> tensor of one batch; refilled in place, so that a graph sees new numbers in old memory
Batch = dict[str, Tensor]
#: (weights in the compute dtype, batch) -> the loss, a float32 scalar
Loss = Callable[[Mapping[str, Tensor], Batch], Tensor]
#: (random source) -> a batch
Fill = Callable[[torch.Generator], Batch]

_WARM_UP = 300
_TIMED = 30


@dataclass
class Source:
    """One shape of batch: how it is filled, its share of all steps, and its graph once it is captured."""

    fill: Fill
    share: float = 1.0
    static: Batch | None = None
    graph: Any = None
    loss: Tensor | None = None


@dataclass
class Training:
    """A set of weights on the way. `average` follows them slowly and is what gets saved.

    peak  greatest learning rate; it warms up to it and falls to zero along a half cosine
    """

    name: str
    weights: Weights
    loss: Loss
    sources: Sequence[Source]
    peak: float
    device: torch.device
    seed: int
    decay: float = 0.999
    dtype: torch.dtype = torch.bfloat16
    average: Weights = field(init=False)
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rate = torch.tensor(0.0, device=self.device)
        graphs = self.device.type == "cuda"
        self._optimizer = torch.optim.AdamW(
            self.weights.values(), lr=self._rate if graphs else 0.0, betas=(0.9, 0.99), weight_decay=0.01, fused=graphs, capturable=graphs
        )
        self.average = {name: tensor.detach().clone() for name, tensor in self.weights.items()}
        self._generator = torch.Generator(self.device).manual_seed(self.seed)
        self._choice = torch.Generator("cpu").manual_seed(self.seed)
        for tensor in self.weights.values():
            tensor.grad = torch.zeros_like(tensor)

    def run(self, seconds: float | None = None, steps: int | None = None) -> None:
        """Train for a number of steps, or for as many as fit into some seconds: they are counted once, then fixed."""
        began = time.monotonic()
        done, total = 0, steps
        self._set_rate(0.0)  # so that preparing changes no weight
        for source in self.sources:
            self._prepare(source)
        while total is None or done < total:
            if total is None and done == _TIMED:
                self._wait()
                timed = time.monotonic()
            if total is None and done == 2 * _TIMED:
                self._wait()
                now = time.monotonic()
                total = done + max(1, int((began + (seconds or 0.0) - now) / ((now - timed) / _TIMED)))
                self._say(f"{(now - timed) / _TIMED * 1e3:.1f} ms a step, so {total} steps")
            loss = self._step(done, total or 10**6)
            done += 1
            if done % 500 == 0 or done == total:
                self._say(f"step {done} of {total}, loss {loss.item():.5f}, {time.monotonic() - began:.0f} s")

    def _say(self, text: str) -> None:
        self.log.append(f"{self.name}: {text}")
        print(self.log[-1], flush=True)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _step(self, done: int, total: int) -> Tensor:
        rate = self.peak * min((done + 1) / min(_WARM_UP, total / 10 + 1), 1.0) * 0.5 * (1 + math.cos(math.pi * min(done / total, 1.0)))
        self._set_rate(rate)
        source = self.sources[int(torch.multinomial(torch.tensor([s.share for s in self.sources]), 1, generator=self._choice))]
        assert source.static is not None
        for name, tensor in source.fill(self._generator).items():
            source.static[name].copy_(tensor)
        if source.graph is None:
            loss = self._compute(source.static)
        else:
            source.graph.replay()
            assert source.loss is not None
            loss = source.loss
        with torch.no_grad():
            keep = min(self.decay, (1 + done) / (10 + done))
            torch._foreach_lerp_(list(self.average.values()), list(self.weights.values()), 1 - keep)
        return loss

    def _set_rate(self, rate: float) -> None:
        if self.device.type == "cuda":
            self._rate.fill_(rate)
        else:
            for group in self._optimizer.param_groups:
                group["lr"] = rate

    def _prepare(self, source: Source) -> None:
        """Make the memory of this shape of batch; on a GPU run the step a few times on a side stream, then capture it."""
        source.static = {name: tensor.clone() for name, tensor in source.fill(self._generator).items()}
        if self.device.type != "cuda":
            return
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(3):
                self._compute(source.static)
        torch.cuda.current_stream(self.device).wait_stream(side)
        source.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(source.graph):
            source.loss = self._compute(source.static)

    def _compute(self, batch: Batch) -> Tensor:
        """Forward, backward, clip, update; everything in place."""
        grads = [tensor.grad for tensor in self.weights.values() if tensor.grad is not None]
        torch._foreach_zero_(grads)
        loss = self.loss({name: tensor.to(self.dtype) for name, tensor in self.weights.items()}, batch)
        loss.backward()
        norm = torch.stack(torch._foreach_norm(grads)).norm()
        torch._foreach_mul_(grads, (1.0 / (norm + 1e-6)).clamp(max=1.0))
        self._optimizer.step()
        return loss.detach()
