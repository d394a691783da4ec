"""Hooks in a conditioning: weights that are other ones while that conditioning is evaluated, by strengths that may follow the steps.

A hook holds no weights: a LoRA file's header or another model's description. Each strength in use is a variant of the
network on the lane, which the lane drops as it drops any model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from comfy.models.component import Component, network_shapes
from comfy.models.lora.formats import load_lora
from comfy.models.lora.keys import keys_of
from comfy.models.lora.tensors import file_tensors
from comfy.models.patches import Patches, WeightRef, add_to
from comfy.weights.files import FileIdentity


@dataclass(frozen=True)
class HookKeyframe:
    """From `start_percent` of the sampling on, a hook's strength is multiplied by `strength`."""

    strength: float
    start_percent: float = 0.0


@dataclass(frozen=True)
class HookKeyframeGroup:
    """Keyframes in the order of their starts."""

    keyframes: tuple[HookKeyframe, ...] = ()

    def with_keyframes(self, more: Sequence[HookKeyframe]) -> HookKeyframeGroup:
        """These and `more`; of two with one start the later added one counts."""
        return HookKeyframeGroup(tuple(sorted((*self.keyframes, *more), key=lambda keyframe: keyframe.start_percent)))

    def strength_at(self, sigma: float, percent_to_sigma: Callable[[float], float]) -> float:
        """The factor at noise level `sigma`: of the last keyframe that has begun, 1 before the first."""
        factor = 1.0
        for keyframe in self.keyframes:
            if sigma <= percent_to_sigma(keyframe.start_percent):
                factor = keyframe.strength
        return factor


@dataclass(frozen=True)
class WeightHook:
    """One change of weights.

    lora   a LoRA file; or
    other  the prefix of weight keys and the component whose weights replace the model's own by the share `strength`
    """

    strength_model: float
    strength_clip: float = 0.0
    lora: FileIdentity | None = None
    other: tuple[tuple[str, Component], ...] = ()
    keyframes: HookKeyframeGroup = HookKeyframeGroup()

    def add_to(self, patches: Patches, handle: Any, strength: float, known: Callable[[str], bool]) -> None:
        """Append this hook's patches for the weights of `handle` (whatever `keys_of` takes) at `strength`."""
        if self.lora is not None:
            add_to(patches, load_lora(file_tensors(self.lora.path), keys_of(handle), log_missing=False), strength, 1.0, known)
        for prefix, component in self.other:
            given = {prefix + name: [WeightRef(component, name)] for name in network_shapes(component.config)}
            add_to(patches, given, strength, 1.0 - strength, known)


@dataclass(frozen=True)
class HookGroup:
    """The hooks of one conditioning: what a HOOKS socket carries."""

    hooks: tuple[WeightHook, ...] = ()

    def __add__(self, other: HookGroup | None) -> HookGroup:
        return self if other is None else HookGroup((*self.hooks, *(hook for hook in other.hooks if hook not in self.hooks)))

    def with_keyframes(self, keyframes: HookKeyframeGroup) -> HookGroup:
        """The same hooks following `keyframes`."""
        return HookGroup(tuple(replace(hook, keyframes=keyframes) for hook in self.hooks))

    def strengths_at(self, sigma: float, percent_to_sigma: Callable[[float], float]) -> tuple[float, ...]:
        """Of each hook on a MODEL at noise level `sigma`."""
        return tuple(hook.strength_model * hook.keyframes.strength_at(sigma, percent_to_sigma) for hook in self.hooks)


def hooked_patches(
    base: Mapping[str, list[Any]], handle: Any, hooks: HookGroup, strengths: Sequence[float], known: Callable[[str], bool]
) -> Patches:
    """`base` and the patches of `hooks` at `strengths`; those of strength 0 add nothing."""
    patches: Patches = dict(base)
    for hook, strength in zip(hooks.hooks, strengths):
        if strength != 0.0:
            hook.add_to(patches, handle, strength, known)
    return patches
