"""Hypernetworks on models."""

from __future__ import annotations

from typing import Any

from comfy import folders


class HypernetworkLoader:
    """A hypernetwork file on both attentions of a model."""

    CATEGORY, FUNCTION, RETURN_TYPES = "loaders", "load_hypernetwork", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        strength = ("FLOAT", {"default": 1.0, "min": -10.0, "max": 10.0, "step": 0.01})
        names = folders.current().filename_list("hypernetworks")
        return {"required": {"model": ("MODEL",), "hypernetwork_name": (names,), "strength": strength}}

    def load_hypernetwork(self, model: Any, hypernetwork_name: str, strength: float) -> tuple[Any]:
        from comfy.models.hypernetwork import read_hypernetwork

        patch = read_hypernetwork(folders.current().full_path_or_raise("hypernetworks", hypernetwork_name), strength)
        changed = model.clone()
        changed.set_model_attn1_patch(patch)
        changed.set_model_attn2_patch(patch)
        return (changed,)


NODE_CLASS_MAPPINGS = {"HypernetworkLoader": HypernetworkLoader}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}
