"""Steps that reuse the step before. Zhou et al. 2025, "Less is Enough: Training-Free Video Diffusion Acceleration via
Runtime-Adaptive Caching" (EasyCache), arXiv:2507.02860, section 3.

The output's change relative to the input's is nearly constant between neighbouring steps. So the input's change tells how
far an old output is off; as long as the sum of that stays below a threshold, the old offset is added to the new input.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from comfy.sampling.extension import WrappersMP

log = logging.getLogger(__name__)

#: key of the run's memory in the transformer options, and of the wrappers on a MODEL
KEY = "step_cache"
TINY = 1e-12


@dataclass
class Memory:
    """What is kept of the steps so far of one part of a batch: rate and offset None until two and one were computed."""

    x: Tensor | None = None
    output: Tensor | None = None
    offset: Tensor | None = None
    rate: float | None = None
    error: float = 0.0

    def reused(self, x: Tensor, threshold: float) -> Tensor | None:
        """The output for x out of the last offset, or None when it would be too far off."""
        if self.rate is None or self.x is None or self.output is None or self.offset is None or self.x.shape != x.shape:
            return None
        self.error += self.rate * _size(x - self.x) / max(_size(self.output), TINY)
        if self.error >= threshold:
            return None
        self.x, self.output = x, x + self.offset
        return self.output

    def computed(self, x: Tensor, output: Tensor) -> None:
        """Learn from a computed step."""
        if self.x is not None and self.output is not None and self.x.shape == x.shape:
            self.rate = _size(output - self.output) / max(_size(x - self.x), TINY)
        self.x, self.output, self.offset, self.error = x, output, output - x, 0.0


@dataclass
class _Run:
    """The memory of one sampling. Dicts of options are copied on the way; this object is not."""

    parts: dict[Hashable, Memory] = field(default_factory=dict)
    reused: int = 0
    total: int = 0


@dataclass(frozen=True)
class StepCache:
    """The wrappers of one MODEL. It reuses while end_sigma <= sigma <= start_sigma; a threshold of 0 never does."""

    threshold: float
    start_sigma: float
    end_sigma: float
    verbose: bool = False

    def add_to(self, model: Any, inside: bool) -> None:
        """inside: reuse what the network gave; else the guided prediction."""
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, self.outer_sample)
        if inside:
            model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, self.diffusion_model)
        else:
            model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, self.predict_noise)

    def outer_sample(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """Give the run a memory of its own."""
        run = _Run()
        executor.class_obj.model_options.setdefault("transformer_options", {})[KEY] = run
        result = executor(*args, **kwargs)
        if self.verbose:
            log.info("%d of %d evaluations were reused", run.reused, run.total)
        return result

    def diffusion_model(self, executor: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Around the network: rows that belong together are remembered together."""
        options = kwargs.get("transformer_options") or {}
        part = (tuple(options.get("uuids") or ()), tuple(options.get("cond_or_uncond") or ()))
        return self._step(options, part, x, options.get("sigmas"), lambda: executor(x, *args, **kwargs))

    def predict_noise(self, executor: Any, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Around the guided prediction."""
        given = kwargs.get("model_options") or (args[0] if args else None) or {}
        return self._step(given.get("transformer_options") or {}, "guided", x, timestep, lambda: executor(x, timestep, *args, **kwargs))

    def _step(self, options: dict[str, Any], part: Hashable, x: Tensor, sigmas: Tensor | None, compute: Callable[[], Tensor]) -> Tensor:
        run = options.get(KEY)
        if not isinstance(run, _Run):
            return compute()
        memory = run.parts.setdefault(part, Memory())
        run.total += 1
        active = sigmas is not None and self.end_sigma <= float(sigmas.max()) <= self.start_sigma
        seen = x if memory.output is None else x[:, : memory.output.shape[1]]
        found = memory.reused(seen, self.threshold) if active else None
        if found is not None:
            run.reused += 1
            return found
        output = compute()
        memory.computed(x[:, : output.shape[1]], output)
        return output


def _size(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(x.float()))
