"""The nodes of comfy_extras.nodes_hooks that make hooks (conditionings that bring weights of their own) and their keyframes.

No recorded numbers exist for these (docs/fidelity.md): the strengths and starts are what the inputs say.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from comfy import folders
from comfy.errors import InputUnusable

log = logging.getLogger(__name__)

STRENGTH = ("FLOAT", {"default": 1.0, "min": -20.0, "max": 20.0, "step": 0.01})
INTERPOLATIONS = ["linear", "ease_in", "ease_out", "ease_in_out"]


def _percent(default: float) -> tuple[str, dict[str, float]]:
    return ("FLOAT", {"default": default, "min": 0.0, "max": 1.0, "step": 0.001})


class _Node:
    EXPERIMENTAL = True
    RETURN_TYPES: tuple[str, ...] = ("HOOKS",)


class CreateHookLora(_Node):
    """A LoRA as a hook."""

    CATEGORY, FUNCTION = "advanced/hooks/create", "create_hook"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        names = folders.current().filename_list("loras")
        required = {"lora_name": (names,), "strength_model": STRENGTH, "strength_clip": STRENGTH}
        return {"required": required, "optional": {"prev_hooks": ("HOOKS",)}}

    def create_hook(self, lora_name: str, strength_model: float, strength_clip: float, prev_hooks: Any = None) -> tuple[Any]:
        from comfy.models.hooks import HookGroup, WeightHook
        from comfy.weights.header import open_index

        file = open_index(folders.current().full_path_or_raise("loras", lora_name)).identity
        made = HookGroup((WeightHook(strength_model, strength_clip, lora=file),))
        return (made if prev_hooks is None else prev_hooks + made,)


class CreateHookLoraModelOnly(CreateHookLora):
    """A LoRA as a hook on models alone."""

    FUNCTION = "create_hook_model_only"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        names = folders.current().filename_list("loras")
        return {"required": {"lora_name": (names,), "strength_model": STRENGTH}, "optional": {"prev_hooks": ("HOOKS",)}}

    def create_hook_model_only(self, lora_name: str, strength_model: float, prev_hooks: Any = None) -> tuple[Any]:
        return self.create_hook(lora_name, strength_model, 0.0, prev_hooks)


class CreateHookModelAsLora(_Node):
    """Another checkpoint's weights as a hook: by the share `strength` they replace the model's own."""

    CATEGORY, FUNCTION = "advanced/hooks/create", "create_hook"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        names = folders.current().filename_list("checkpoints")
        required = {"ckpt_name": (names,), "strength_model": STRENGTH, "strength_clip": STRENGTH}
        return {"required": required, "optional": {"prev_hooks": ("HOOKS",)}}

    def create_hook(self, ckpt_name: str, strength_model: float, strength_clip: float, prev_hooks: Any = None) -> tuple[Any]:
        from comfy.models.hooks import HookGroup, WeightHook
        from comfy.models.loader import load_checkpoint

        found = load_checkpoint(folders.current().full_path_or_raise("checkpoints", ckpt_name))
        parts = dict(found.model.source.components()) if found.model.source is not None else {}
        if found.clip is not None:
            parts |= found.clip.source.components()
        made = HookGroup((WeightHook(strength_model, strength_clip, other=tuple(parts.items())),))
        return (made if prev_hooks is None else prev_hooks + made,)


class CreateHookModelAsLoraModelOnly(CreateHookModelAsLora):
    """The same on models alone."""

    FUNCTION = "create_hook_model_only"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        names = folders.current().filename_list("checkpoints")
        return {"required": {"ckpt_name": (names,), "strength_model": STRENGTH}, "optional": {"prev_hooks": ("HOOKS",)}}

    def create_hook_model_only(self, ckpt_name: str, strength_model: float, prev_hooks: Any = None) -> tuple[Any]:
        return self.create_hook(ckpt_name, strength_model, 0.0, prev_hooks)


class SetHookKeyframes(_Node):
    """Let hooks follow keyframes."""

    CATEGORY, FUNCTION = "advanced/hooks/scheduling", "set_hook_keyframes"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"hooks": ("HOOKS",)}, "optional": {"hook_kf": ("HOOK_KEYFRAMES",)}}

    def set_hook_keyframes(self, hooks: Any, hook_kf: Any = None) -> tuple[Any]:
        return (hooks if hook_kf is None else hooks.with_keyframes(hook_kf),)


class _Keyframes(_Node):
    CATEGORY = "advanced/hooks/scheduling"
    RETURN_TYPES, RETURN_NAMES = ("HOOK_KEYFRAMES",), ("HOOK_KF",)

    @staticmethod
    def joined(previous: Any, strengths: Sequence[float], percents: Sequence[float], tell: bool = False) -> Any:
        """The keyframes so far and new ones."""
        from comfy.models.hooks import HookKeyframe, HookKeyframeGroup

        made = [HookKeyframe(float(strength), float(percent)) for strength, percent in zip(strengths, percents)]
        if tell:
            for keyframe in made:
                log.info("hook keyframe: from %.3f strength %.3f", keyframe.start_percent, keyframe.strength)
        return (previous or HookKeyframeGroup()).with_keyframes(made)


class CreateHookKeyframe(_Keyframes):
    """A strength from one point of the sampling on."""

    FUNCTION = "create_hook_keyframe"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        required = {"strength_mult": STRENGTH, "start_percent": _percent(0.0)}
        return {"required": required, "optional": {"prev_hook_kf": ("HOOK_KEYFRAMES",)}}

    def create_hook_keyframe(self, strength_mult: float, start_percent: float, prev_hook_kf: Any = None) -> tuple[Any]:
        return (self.joined(prev_hook_kf, [strength_mult], [start_percent]),)


def spread(start: float, end: float, count: int) -> list[float]:
    """`count` numbers from start to end, evenly."""
    return [start + (end - start) * i / max(count - 1, 1) for i in range(count)]


def eased(t: float, how: str) -> float:
    """0..1 -> 0..1 along a curve of INTERPOLATIONS: squares, and the cubic smoothstep."""
    return {"ease_in": t * t, "ease_out": 1 - (1 - t) ** 2, "ease_in_out": t * t * (3 - 2 * t)}.get(how, t)


class CreateHookKeyframesInterpolated(_Keyframes):
    """Keyframes along a curve between two strengths."""

    FUNCTION = "create_hook_keyframes"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        strength = ("FLOAT", {"default": 1.0, "min": 0.0, "max": 10.0, "step": 0.001})
        required = {
            "strength_start": strength,
            "strength_end": strength,
            "interpolation": (INTERPOLATIONS,),
            "start_percent": _percent(0.0),
            "end_percent": _percent(1.0),
            "keyframes_count": ("INT", {"default": 5, "min": 2, "max": 100, "step": 1}),
            "print_keyframes": ("BOOLEAN", {"default": False}),
        }
        return {"required": required, "optional": {"prev_hook_kf": ("HOOK_KEYFRAMES",)}}

    def create_hook_keyframes(
        self,
        strength_start: float,
        strength_end: float,
        interpolation: str,
        start_percent: float,
        end_percent: float,
        keyframes_count: int,
        print_keyframes: bool,
        prev_hook_kf: Any = None,
    ) -> tuple[Any]:
        shares = [eased(t, interpolation) for t in spread(0.0, 1.0, keyframes_count)]
        strengths = [strength_start + (strength_end - strength_start) * share for share in shares]
        return (self.joined(prev_hook_kf, strengths, spread(start_percent, end_percent, keyframes_count), print_keyframes),)


class CreateHookKeyframesFromFloats(_Keyframes):
    """A keyframe for each of some numbers, evenly over a range."""

    FUNCTION = "create_hook_keyframes"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        required = {
            "floats_strength": ("FLOATS", {"default": -1, "min": -1, "step": 0.001, "forceInput": True}),
            "start_percent": _percent(0.0),
            "end_percent": _percent(1.0),
            "print_keyframes": ("BOOLEAN", {"default": False}),
        }
        return {"required": required, "optional": {"prev_hook_kf": ("HOOK_KEYFRAMES",)}}

    def create_hook_keyframes(
        self, floats_strength: Any, start_percent: float, end_percent: float, print_keyframes: bool, prev_hook_kf: Any = None
    ) -> tuple[Any]:
        strengths = [floats_strength] if isinstance(floats_strength, (int, float)) else list(floats_strength)
        if not strengths or not all(isinstance(strength, (int, float)) for strength in strengths):
            raise InputUnusable("The strengths are no list of numbers.", input="floats_strength")
        return (self.joined(prev_hook_kf, strengths, spread(start_percent, end_percent, len(strengths)), print_keyframes),)


def _combine_class(count: int) -> type[_Node]:
    names = [f"hooks_{letter}" for letter in "ABCDEFGH"[:count]]

    class Combine(_Node):
        __doc__ = f"Up to {count} groups of hooks as one."
        CATEGORY, FUNCTION = "advanced/hooks/combine", "combine_hooks"

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:
            return {"required": {}, "optional": dict.fromkeys(names, ("HOOKS",))}

        def combine_hooks(self, **groups: Any) -> tuple[Any]:
            given = [groups[name] for name in names if groups.get(name) is not None]
            if not given:
                return (None,)
            total = given[0]
            for group in given[1:]:
                total = total + group
            return (total,)

    return Combine


HOOK_NODES: dict[str, type[_Node]] = {
    "CreateHookLora": CreateHookLora,
    "CreateHookLoraModelOnly": CreateHookLoraModelOnly,
    "CreateHookModelAsLora": CreateHookModelAsLora,
    "CreateHookModelAsLoraModelOnly": CreateHookModelAsLoraModelOnly,
    "SetHookKeyframes": SetHookKeyframes,
    "CreateHookKeyframe": CreateHookKeyframe,
    "CreateHookKeyframesInterpolated": CreateHookKeyframesInterpolated,
    "CreateHookKeyframesFromFloats": CreateHookKeyframesFromFloats,
    "CombineHooks2": _combine_class(2),
    "CombineHooks4": _combine_class(4),
    "CombineHooks8": _combine_class(8),
}
HOOK_TITLES = {
    "CreateHookLora": "Create Hook LoRA",
    "CreateHookLoraModelOnly": "Create Hook LoRA (MO)",
    "CreateHookModelAsLora": "Create Hook Model as LoRA",
    "CreateHookModelAsLoraModelOnly": "Create Hook Model as LoRA (MO)",
    "SetHookKeyframes": "Set Hook Keyframes",
    "CreateHookKeyframe": "Create Hook Keyframe",
    "CreateHookKeyframesInterpolated": "Create Hook Keyframes Interp.",
    "CreateHookKeyframesFromFloats": "Create Hook Keyframes From Floats",
    "CombineHooks2": "Combine Hooks [2]",
    "CombineHooks4": "Combine Hooks [4]",
    "CombineHooks8": "Combine Hooks [8]",
}
