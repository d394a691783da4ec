"""Hypernetworks: small networks before the keys and values of attention, by width of the context.

Format: the pickles of the web UI that trained them. {width: (state dict for keys, for values), "activation_func": …,
"activate_output": …}; a state dict is a sequence of linear layers and layer norms named `linear.N.weight`, older ones
`linear1.weight`, `linear2.weight`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from comfy.errors import WeightFileInvalid
from comfy.weights.header import load_pickle

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x,
    "relu": F.relu,
    "leakyrelu": F.leaky_relu,
    "elu": F.elu,
    "swish": F.hardswish,
    "hardswish": F.hardswish,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softsign": F.softsign,
    "softplus": F.softplus,
    "mish": F.mish,
    "gelu": F.gelu,
    "silu": F.silu,
}
_OLD_NAMES = {
    "linear1.weight": "linear.0.weight",
    "linear1.bias": "linear.0.bias",
    "linear2.weight": "linear.1.weight",
    "linear2.bias": "linear.1.bias",
}
_LAYER = re.compile(r"^linear\.(\d+)\.(weight|bias)$")


@dataclass(frozen=True)
class Net:
    """layers   (weight, bias) in order: a matrix is a linear layer, a vector a layer norm
    activation  after each linear layer but the last, also after that when `activate_output`
    """

    layers: tuple[tuple[Tensor, Tensor | None], ...]
    activation: str = "linear"
    activate_output: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        """(b, s, width) -> like it, the input included: the network computes a change."""
        h, activate = x, ACTIVATIONS[self.activation]
        last = max(i for i, (weight, _) in enumerate(self.layers) if weight.ndim == 2)
        for i, (weight, bias) in enumerate(self.layers):
            weight, bias = weight.to(x), None if bias is None else bias.to(x)
            if weight.ndim == 1:
                h = F.layer_norm(h, weight.shape, weight, bias)
                continue
            h = F.linear(h, weight, bias)
            if i != last or self.activate_output:
                h = activate(h)
        return h


@dataclass(frozen=True)
class Hypernetwork:
    """An attention patch: context and values of the widths that it knows are changed, others stay."""

    nets: Mapping[int, tuple[Net, Net]]
    strength: float = 1.0

    def __call__(self, n: Tensor, context: Tensor, value: Tensor, extra_options: Any) -> tuple[Tensor, Tensor, Tensor]:
        found = self.nets.get(context.shape[-1])
        if found is None:
            return n, context, value
        return n, context + self.strength * found[0](context), value + self.strength * found[1](value)


def read_hypernetwork(path: str, strength: float) -> Hypernetwork:
    """The hypernetwork of a file. Raises WeightFileMissing, WeightFileInvalid."""
    loaded = load_pickle(path)
    name = os.path.basename(path)
    if not isinstance(loaded, Mapping):
        raise WeightFileInvalid("There is no hypernetwork in it.", file=name)
    activation = str(loaded.get("activation_func") or "linear").lower()
    if activation not in ACTIVATIONS:
        raise WeightFileInvalid("Its activation is unknown.", file=name, activation=activation, known=sorted(ACTIVATIONS))
    output = bool(loaded.get("activate_output", False))
    nets = {}
    for width, pair in loaded.items():
        if isinstance(width, int) and isinstance(pair, (list, tuple)) and len(pair) >= 2:
            nets[width] = (_net(pair[0], activation, output, width, name), _net(pair[1], activation, output, width, name))
    if not nets:
        raise WeightFileInvalid("There is no hypernetwork in it.", file=name)
    return Hypernetwork(nets, strength)


def _net(state: Any, activation: str, activate_output: bool, width: int, file_name: str) -> Net:
    tensors: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.items() if isinstance(state, Mapping) else ():
        match = _LAYER.match(_OLD_NAMES.get(str(name), str(name)))
        if match and isinstance(tensor, Tensor) and tensor.is_floating_point():
            tensors.setdefault(int(match[1]), {})[match[2]] = tensor.detach().float()
    layers = tuple((parts["weight"], parts.get("bias")) for _, parts in sorted(tensors.items()) if "weight" in parts)
    size = width
    for weight, bias in layers:
        if weight.ndim not in (1, 2) or weight.shape[-1] != size or (bias is not None and bias.shape != weight.shape[:1]):
            raise WeightFileInvalid("Its layers do not fit each other.", file=file_name, width=width, shape=list(weight.shape))
        size = weight.shape[0]
    if size != width or not any(weight.ndim == 2 for weight, _ in layers):
        raise WeightFileInvalid("Its layers do not fit each other.", file=file_name, width=width)
    return Net(layers, activation, activate_output)
