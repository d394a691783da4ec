"""The one place from which a denoiser network is called."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class RunnerStatistics:
    """Counters since the start. `calls` are forward passes of a network."""

    calls: int


class DenoiserRunner:
    """Runs denoiser networks for one lane, in its thread. Nothing else calls one.

    It runs them eagerly. CUDA graphs come in here and nowhere else (docs/architecture.md, "Denoiser runner"): keyed by
    what `run()` is given (the component and its patches in `key`, shapes, dtype, layout of the conditioning), first
    step eager, then capture, then replay. So callers pass tensors and plain descriptions, and keep no step's state in closures.
    """

    def __init__(self) -> None:
        self._calls = 0

    def run(
        self,
        network: nn.Module,
        key: Hashable,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None,
        *,
        y: Tensor | None = None,
        control: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """One forward pass: the network's raw output, shaped like x but for its channels.

        key        the component and its patches: equal keys mean equal weights and code
        x          (b, c, …) in the run dtype, already scaled for the network
        timesteps  (b,) as the network counts them
        context    (b, s, d) text conditioning, or None for a network without
        y          (b, v) vector conditioning; left out of the call when None
        control    residuals by place; left out of the call when None
        options    transformer_options: patches and what they see; the network gets its own dict of them
        extra      further inputs by the name of the network's argument, such as guidance
        """
        self._calls += 1
        given: dict[str, Any] = {} if y is None else {"y": y}
        if control is not None:
            given["control"] = control
        return network(x, timesteps, context, transformer_options=dict(options or {}), **given, **(extra or {}))

    def statistics(self) -> RunnerStatistics:
        """Any thread may ask."""
        return RunnerStatistics(self._calls)
