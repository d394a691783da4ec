"""A fallback: conditionings that count where the others leave weight (goldens README, D.1).

Clients know these two beside the nodes for hooks, and so does `/object_info`.
"""

from __future__ import annotations

from typing import Any

from comfy.nodes.conventions import Conditioning, conditioning_set_values

CONDITIONING, HOOKS = ("CONDITIONING",), ("HOOKS",)


def with_default(conditioning: Conditioning, default: Conditioning, hooks: Any = None) -> Conditioning:
    """Both; the entries of `default` are the fallback, with `hooks` on top of those that they have."""
    fallback = conditioning_set_values(default, {"default": True})
    if hooks is not None:
        fallback = conditioning_set_values(fallback, {"hooks": hooks}, append=True)
    return [*conditioning, *fallback]


class ConditioningSetDefaultCombine:
    """Add a conditioning that counts where the others do not."""

    CATEGORY, FUNCTION, EXPERIMENTAL = "advanced/hooks/cond single", "set_default_and_combine", True
    RETURN_TYPES = ("CONDITIONING",)
    RELATIVE_PYTHON_MODULE = "comfy_extras.nodes_hooks"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"cond": CONDITIONING, "cond_DEFAULT": CONDITIONING}, "optional": {"hooks": HOOKS}}

    def set_default_and_combine(self, cond: Conditioning, cond_DEFAULT: Conditioning, hooks: Any = None) -> tuple[Conditioning]:
        return (with_default(cond, cond_DEFAULT, hooks),)


class PairConditioningSetDefaultCombine:
    """Add a pair that counts where the others do not."""

    CATEGORY, FUNCTION, EXPERIMENTAL = "advanced/hooks/cond pair", "set_default_and_combine", True
    RETURN_TYPES, RETURN_NAMES = ("CONDITIONING", "CONDITIONING"), ("positive", "negative")
    RELATIVE_PYTHON_MODULE = "comfy_extras.nodes_hooks"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        sides = dict.fromkeys(("positive", "negative", "positive_DEFAULT", "negative_DEFAULT"), CONDITIONING)
        return {"required": sides, "optional": {"hooks": HOOKS}}

    def set_default_and_combine(
        self,
        positive: Conditioning,
        negative: Conditioning,
        positive_DEFAULT: Conditioning,
        negative_DEFAULT: Conditioning,
        hooks: Any = None,
    ) -> tuple[Conditioning, Conditioning]:
        return with_default(positive, positive_DEFAULT, hooks), with_default(negative, negative_DEFAULT, hooks)


NODE_CLASS_MAPPINGS = {
    "ConditioningSetDefaultCombine": ConditioningSetDefaultCombine,
    "PairConditioningSetDefaultCombine": PairConditioningSetDefaultCombine,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "ConditioningSetDefaultCombine": "Cond Set Default Combine",
    "PairConditioningSetDefaultCombine": "Cond Pair Set Default Combine",
}
