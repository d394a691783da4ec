"""The one place from which a denoiser network is called."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from comfy import replaceable
from comfy.device.graphs import GraphPool, GraphStatistics, layout_of

log = logging.getLogger(__name__)

#: functions inside a network that packs replace by assignment; what they put there may do anything
REPLACED_INSIDE = "comfy.ldm."


@dataclass(frozen=True)
class RunnerStatistics:
    """Counters since the start. `calls` are forward passes of a network, however they were run."""

    calls: int
    graphs: GraphStatistics


class DenoiserRunner:
    """Runs denoiser networks for one lane, in its thread. Nothing else calls one.

    With a GraphPool a pass is captured the second time and replayed from then on. A pass runs eagerly when Python code of
    a node stands inside it: patches of the network, a replaced function, a hook on a module. So callers pass tensors
    and plain descriptions, and keep no step's state in closures.
    """

    def __init__(self, graphs: GraphPool | None = None) -> None:
        self._graphs = graphs
        self._calls = 0
        self._said: set[str] = set()

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
        call = _Call(network, x, timesteps, context, y, control, options, extra or {})
        if self._graphs is None or not self._capturable(call):
            return call.now()
        inputs = call.tensors()
        return self._graphs.run((key, layout_of(inputs), call.shape), network, inputs, call.on)

    def clear(self) -> None:
        """Drop what was captured, and its memory."""
        if self._graphs is not None:
            self._graphs.clear()

    def statistics(self) -> RunnerStatistics:
        """Any thread may ask."""
        return RunnerStatistics(self._calls, GraphStatistics() if self._graphs is None else self._graphs.statistics())

    def _capturable(self, call: _Call) -> bool:
        """Whether no Python code of a node stands inside the pass. The reason against it is logged once."""
        reason = call.code_inside()
        if reason is not None and reason not in self._said:
            self._said.add(reason)
            log.info("a network runs eagerly, not as a CUDA graph: %s", reason, extra={"action": "graph_refused"})
        return reason is None


@dataclass(frozen=True)
class _Call:
    """The arguments of one forward pass."""

    network: nn.Module
    x: Tensor
    timesteps: Tensor
    context: Tensor | None
    y: Tensor | None
    control: Mapping[str, Any] | None
    options: Mapping[str, Any] | None
    extra: Mapping[str, Any]

    def now(self) -> Tensor:
        """The pass, eagerly."""
        given: dict[str, Any] = {} if self.y is None else {"y": self.y}
        if self.control is not None:
            given["control"] = self.control
        return self.network(self.x, self.timesteps, self.context, transformer_options=dict(self.options or {}), **given, **self.extra)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that differs from call to call, by name."""
        named = {"x": self.x, "timesteps": self.timesteps, "context": self.context, "y": self.y}
        named |= {f"extra.{name}": value for name, value in self.extra.items() if isinstance(value, Tensor)}
        for place, residuals in (self.control or {}).items():
            named |= {f"control.{place}.{i}": residual for i, residual in enumerate(residuals or ())}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def on(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The pass on other tensors of the same names."""
        control = self.control and {
            place: [tensors.get(f"control.{place}.{i}") for i in range(len(residuals or ()))] for place, residuals in self.control.items()
        }
        extra = {name: tensors.get(f"extra.{name}", value) for name, value in self.extra.items()}
        other = replace(self, x=tensors["x"], timesteps=tensors["timesteps"], context=tensors.get("context"), y=tensors.get("y"))
        return replace(other, control=control, extra=extra).now()

    @property
    def shape(self) -> Hashable:
        """What else the pass depends on: plain arguments, and how many residuals each place has."""
        places = tuple((place, len(residuals or ())) for place, residuals in (self.control or {}).items())
        return places, tuple((name, value) for name, value in self.extra.items() if not isinstance(value, Tensor))

    def code_inside(self) -> str | None:
        """Why the pass may do more than launch the same kernels each time; None when it does not."""
        options = self.options or {}
        patches = [name for group in ("patches", "patches_replace") for name, found in (options.get(group) or {}).items() if found]
        if patches:
            return f"its model has patches ({', '.join(sorted(patches))})"
        replaced = replaceable.bound(REPLACED_INSIDE)
        if replaced:
            return f"a custom node replaced {', '.join(replaced)}"
        if not all(isinstance(value, (Tensor, int, float, str, type(None))) for value in self.extra.values()):
            return "it is given Python objects"
        if any(module._forward_hooks or module._forward_pre_hooks for module in self.network.modules()):
            return "a custom node hooked its modules"
        return None
