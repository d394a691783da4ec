"""Changes of weights: (strength, value, strength of the weight itself, row range, function) per key, in the order added.

Maths: goldens README, section H.1. Adapters (LoRA and its kin) are objects with a `calculate_weight` method.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from comfy.device import context
from comfy.errors import InputUnusable
from comfy.models.component import Component
from comfy.replaceable import replaceable

log = logging.getLogger(__name__)

#: (strength_patch, value, strength_model, offset or None, function or None)
Patch = tuple[float, Any, float, tuple[int, int, int] | None, Callable[[Tensor], Tensor] | None]
Patches = dict[str, list[Patch]]


@dataclass(frozen=True)
class WeightRef:
    """A weight of another model, named instead of held: `name` in the network of `component`."""

    component: Component
    name: str

    def tensor(self) -> Tensor:
        """The weight on the calling lane's device: a view, never to be written to."""
        return self.component.module(context.current()).get_parameter(self.name)


def add_to(
    patches: Patches, given: Mapping[Any, Any], strength_patch: float, strength_model: float, known: Callable[[str], bool]
) -> list[Any]:
    """Append `given` (key, or (key, offset[, function]) -> value) to `patches`; returns the keys that `known` knows."""
    taken = []
    for target, value in given.items():
        key, offset, function = (target, None, None) if isinstance(target, str) else (*target, None)[:3]
        if known(key):
            patches[key] = [*patches.get(key, []), (strength_patch, value, strength_model, offset, function)]
            taken.append(target)
    return taken


def patched(patches: Sequence[Patch], weight: Tensor, key: str) -> Tensor:
    """A new tensor: `weight` with `patches` applied in float32, then rounded to the weight's dtype once."""
    result: Tensor = calculate_weight(patches, weight.to(torch.float32, copy=True), key)
    return result.to(weight.dtype)


@replaceable("comfy.lora.calculate_weight")
def calculate_weight(
    patches: Sequence[Patch],
    weight: Tensor,
    key: str,
    intermediate_dtype: torch.dtype = torch.float32,
    original_weights: Mapping[str, Any] | None = None,
) -> Tensor:
    """`weight` with `patches` applied in order, each seeing the result so far. May change `weight` in place.

    key  for messages. A patch of another shape is ignored with a warning; one of an unknown kind raises InputUnusable.
    """
    for strength, value, strength_model, offset, function in patches:
        part = weight if offset is None else weight.narrow(*offset)
        if strength_model != 1.0:
            part.mul_(strength_model)
        result = _apply(value, strength, part, key, function, intermediate_dtype, original_weights)
        if offset is None:
            weight = result
        elif result is not part:
            part.copy_(result)
    return weight


def _apply(
    value: Any,
    strength: float,
    weight: Tensor,
    key: str,
    function: Callable[[Tensor], Tensor] | None,
    dtype: torch.dtype,
    original_weights: Mapping[str, Any] | None,
) -> Tensor:
    change = function or (lambda delta: delta)
    if hasattr(value, "calculate_weight"):
        result: Tensor = value.calculate_weight(weight, key, strength, 1.0, None, change, dtype, original_weights)
        return result
    if isinstance(value, list):  # a weight of another model with patches of its own
        start = _tensor(value[0]).to(device=weight.device, dtype=dtype, copy=True)
        value = ("diff", (calculate_weight(value[1:], start, key, dtype),))
    kind, parts = ("diff", value) if len(value) == 1 else value
    if kind == "diff":
        delta = _tensor(parts[0])
        if strength == 0.0:
            return weight
        if delta.shape != weight.shape:
            log.warning("a patch of %s has shape %s instead of %s: ignored", key, list(delta.shape), list(weight.shape))
            return weight
        return weight.add_(change(strength * delta.to(device=weight.device, dtype=dtype)).to(weight.dtype))
    if kind == "set":
        whole = _tensor(parts[0])
        if whole.shape != weight.shape:
            log.warning("a replacement of %s has shape %s instead of %s: ignored", key, list(whole.shape), list(weight.shape))
            return weight
        return weight.copy_(whole)
    raise InputUnusable("There is no weight patch of this kind.", kind=str(kind), key=key)


def _tensor(value: Any) -> Tensor:
    if isinstance(value, tuple):
        value = value[0]
    found: Tensor = value.tensor() if hasattr(value, "tensor") else value  # WeightRef, FileTensor
    return found
