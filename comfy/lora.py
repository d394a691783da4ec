"""Where custom nodes import LoRA loading and weight patching from. Assigning `calculate_weight` here changes what the core calls."""

from __future__ import annotations

from typing import Any

from comfy.models.lora.formats import load_lora
from comfy.models.lora.keys import keys_of
from comfy.models.patches import calculate_weight
from comfy.replaceable import write_through

__all__ = ["calculate_weight", "load_lora", "model_lora_keys_clip", "model_lora_keys_unet"]


def model_lora_keys_unet(model: Any, key_map: dict[str, Any] | None = None) -> dict[str, Any]:
    """`key_map` (a new one by default) with the names that the weights of a MODEL's `.model` answer to."""
    key_map = {} if key_map is None else key_map
    key_map.update(keys_of(model))
    return key_map


def model_lora_keys_clip(model: Any, key_map: dict[str, Any] | None = None) -> dict[str, Any]:
    """The same for a CLIP's `.cond_stage_model`."""
    return model_lora_keys_unet(model, key_map)


write_through(__name__)
