"""Strength, mask, range and fallback of one conditioning or of a pair, in one node each (goldens README D.1 for what they mean).

The nodes that make hooks lie in `making_hooks`; entries with different hooks are evaluated apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from comfy.nodes.conditioning import STRENGTH
from comfy.nodes.conventions import Conditioning, conditioning_set_values
from comfy_extras.making_hooks import HOOK_NODES, HOOK_TITLES

#: (start, end) as parts of the sampling, 0..1
TimestepsRange = tuple[float, float]

CONDITIONING = ("CONDITIONING",)
PROPERTIES = {"strength": STRENGTH, "set_cond_area": (["default", "mask bounds"],)}
OPTIONAL = {"mask": ("MASK",), "hooks": ("HOOKS",), "timesteps": ("TIMESTEPS_RANGE",)}


def with_properties(
    conditioning: Conditioning,
    strength: float,
    set_cond_area: str,
    mask: Tensor | None = None,
    hooks: Any = None,
    timesteps: TimestepsRange | None = None,
) -> Conditioning:
    """The conditioning with these properties; those that are not given stay as they are.

    mask (h, w) or (b, h, w): `strength` then weighs the mask, else the whole entry.
    """
    values: dict[str, Any] = {}
    if mask is None:
        values["strength"] = strength
    else:
        values["mask"] = mask.unsqueeze(0) if mask.ndim < 3 else mask
        values["mask_strength"] = strength
        values["set_area_to_bounds"] = set_cond_area != "default"
    if hooks is not None:
        values["hooks"] = hooks
    if timesteps is not None:
        values["start_percent"], values["end_percent"] = timesteps
    return conditioning_set_values(conditioning, values)


def with_default(conditioning: Conditioning, default: Conditioning, hooks: Any = None) -> Conditioning:
    """Both; the entries of `default` count where the others leave weight."""
    values: dict[str, Any] = {"default": True}
    if hooks is not None:
        values["hooks"] = hooks
    return [*conditioning, *conditioning_set_values(default, values)]


class _OfOne:
    """What the nodes for one conditioning share."""

    CATEGORY, FUNCTION, EXPERIMENTAL = "advanced/hooks/cond single", "apply", True
    RETURN_TYPES: Sequence[str] = ("CONDITIONING",)


class _OfPair:
    """What the nodes for a positive and a negative share."""

    CATEGORY, FUNCTION, EXPERIMENTAL = "advanced/hooks/cond pair", "apply", True
    RETURN_TYPES: Sequence[str] = ("CONDITIONING", "CONDITIONING")
    RETURN_NAMES: Sequence[str] = ("positive", "negative")


class ConditioningSetProperties(_OfOne):
    """Set strength, mask and range of a conditioning."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"cond_NEW": CONDITIONING, **PROPERTIES}, "optional": OPTIONAL}

    def apply(self, cond_NEW: Conditioning, strength: float, set_cond_area: str, **given: Any) -> tuple[Conditioning]:
        return (with_properties(cond_NEW, strength, set_cond_area, **given),)


class ConditioningSetPropertiesAndCombine(_OfOne):
    """Set the properties of a conditioning and add it to another."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"cond": CONDITIONING, "cond_NEW": CONDITIONING, **PROPERTIES}, "optional": OPTIONAL}

    def apply(self, cond: Conditioning, cond_NEW: Conditioning, strength: float, set_cond_area: str, **given: Any) -> tuple[Conditioning]:
        return ([*cond, *with_properties(cond_NEW, strength, set_cond_area, **given)],)


class ConditioningSetDefaultCombine(_OfOne):
    """Add a conditioning that counts where the others do not."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"cond": CONDITIONING, "cond_DEFAULT": CONDITIONING}, "optional": {"hooks": ("HOOKS",)}}

    def apply(self, cond: Conditioning, cond_DEFAULT: Conditioning, hooks: Any = None) -> tuple[Conditioning]:
        return (with_default(cond, cond_DEFAULT, hooks),)


class PairConditioningSetProperties(_OfPair):
    """Set strength, mask and range of both sides."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"positive_NEW": CONDITIONING, "negative_NEW": CONDITIONING, **PROPERTIES}, "optional": OPTIONAL}

    def apply(
        self, positive_NEW: Conditioning, negative_NEW: Conditioning, strength: float, set_cond_area: str, **given: Any
    ) -> tuple[Conditioning, Conditioning]:
        positive, negative = (with_properties(side, strength, set_cond_area, **given) for side in (positive_NEW, negative_NEW))
        return positive, negative


class PairConditioningSetPropertiesAndCombine(_OfPair):
    """Set the properties of both sides and add them to another pair."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        sides = dict.fromkeys(("positive", "negative", "positive_NEW", "negative_NEW"), CONDITIONING)
        return {"required": {**sides, **PROPERTIES}, "optional": OPTIONAL}

    def apply(
        self,
        positive: Conditioning,
        negative: Conditioning,
        positive_NEW: Conditioning,
        negative_NEW: Conditioning,
        strength: float,
        set_cond_area: str,
        **given: Any,
    ) -> tuple[Conditioning, Conditioning]:
        added = [with_properties(side, strength, set_cond_area, **given) for side in (positive_NEW, negative_NEW)]
        return [*positive, *added[0]], [*negative, *added[1]]


class PairConditioningSetDefaultCombine(_OfPair):
    """Add a pair that counts where the others do not."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        sides = dict.fromkeys(("positive", "negative", "positive_DEFAULT", "negative_DEFAULT"), CONDITIONING)
        return {"required": sides, "optional": {"hooks": ("HOOKS",)}}

    def apply(
        self,
        positive: Conditioning,
        negative: Conditioning,
        positive_DEFAULT: Conditioning,
        negative_DEFAULT: Conditioning,
        hooks: Any = None,
    ) -> tuple[Conditioning, Conditioning]:
        return with_default(positive, positive_DEFAULT, hooks), with_default(negative, negative_DEFAULT, hooks)


class PairConditioningCombine(_OfPair):
    """Two pairs, each entry predicted for itself."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": dict.fromkeys(("positive_A", "negative_A", "positive_B", "negative_B"), CONDITIONING)}

    def apply(
        self, positive_A: Conditioning, negative_A: Conditioning, positive_B: Conditioning, negative_B: Conditioning
    ) -> tuple[Conditioning, Conditioning]:
        return [*positive_A, *positive_B], [*negative_A, *negative_B]


class ConditioningTimestepsRange:
    """A part of the sampling, and what comes before and after it."""

    CATEGORY, FUNCTION, EXPERIMENTAL = "advanced/hooks", "ranges", True
    RETURN_TYPES = ("TIMESTEPS_RANGE", "TIMESTEPS_RANGE", "TIMESTEPS_RANGE")
    RETURN_NAMES = ("TIMESTEPS_RANGE", "BEFORE_RANGE", "AFTER_RANGE")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "start_percent": ("FLOAT", {"default": 0.0, "min": 0.0, "max": 1.0, "step": 0.001}),
                "end_percent": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.001}),
            }
        }

    def ranges(self, start_percent: float, end_percent: float) -> tuple[TimestepsRange, TimestepsRange, TimestepsRange]:
        return (start_percent, end_percent), (0.0, start_percent), (end_percent, 1.0)


NODE_CLASS_MAPPINGS: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        ConditioningSetProperties,
        ConditioningSetPropertiesAndCombine,
        ConditioningSetDefaultCombine,
        PairConditioningSetProperties,
        PairConditioningSetPropertiesAndCombine,
        PairConditioningSetDefaultCombine,
        PairConditioningCombine,
        ConditioningTimestepsRange,
    )
} | HOOK_NODES
NODE_DISPLAY_NAME_MAPPINGS = {
    "ConditioningSetProperties": "Cond Set Props",
    "ConditioningSetPropertiesAndCombine": "Cond Set Props Combine",
    "ConditioningSetDefaultCombine": "Cond Set Default Combine",
    "PairConditioningSetProperties": "Cond Pair Set Props",
    "PairConditioningSetPropertiesAndCombine": "Cond Pair Set Props Combine",
    "PairConditioningSetDefaultCombine": "Cond Pair Set Default Combine",
    "PairConditioningCombine": "Cond Pair Combine",
    "ConditioningTimestepsRange": "Timesteps Range",
} | HOOK_TITLES
