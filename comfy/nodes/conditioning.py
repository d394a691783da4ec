"""Nodes that encode prompts and say where, when and how strongly a conditioning counts.

A CONDITIONING is a list of [tokens (b, s, d), dict]; each node gives new lists and dicts (contract: goldens README D).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from comfy.errors import InputUnusable
from comfy.nodes.conventions import MAX_RESOLUTION, Conditioning, conditioning_set_values

STRENGTH = ("FLOAT", {"default": 1.0, "min": 0.0, "max": 10.0, "step": 0.01})


class CLIPTextEncode:
    """Encode a prompt with a text encoder."""

    CATEGORY, FUNCTION, RETURN_TYPES = "conditioning", "encode", ("CONDITIONING",)
    OUTPUT_TOOLTIPS = ("The prompt as the model reads it.",)
    DESCRIPTION = "Encodes a text prompt with a CLIP model into an embedding that steers the diffusion model."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "text": ("STRING", {"multiline": True, "dynamicPrompts": True, "tooltip": "The prompt."}),
                "clip": ("CLIP", {"tooltip": "The text encoder."}),
            }
        }

    def encode(self, clip: Any, text: str) -> tuple[Conditioning]:
        if clip is None:
            raise InputUnusable("The CLIP input is empty: the checkpoint holds no text encoder.", input="clip")
        return (clip.encode_from_tokens_scheduled(clip.tokenize(text)),)


class CLIPSetLastLayer:
    """Take the prompt's encoding from an earlier layer."""

    CATEGORY, FUNCTION, RETURN_TYPES = "conditioning", "set_last_layer", ("CLIP",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"clip": ("CLIP",), "stop_at_clip_layer": ("INT", {"default": -1, "min": -24, "max": -1, "step": 1})}}

    def set_last_layer(self, clip: Any, stop_at_clip_layer: int) -> tuple[Any]:
        changed = clip.clone()
        changed.clip_layer(stop_at_clip_layer)
        return (changed,)


class ConditioningCombine:
    """Both conditionings, each predicted for itself."""

    CATEGORY, FUNCTION, RETURN_TYPES = "conditioning", "combine", ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"conditioning_1": ("CONDITIONING",), "conditioning_2": ("CONDITIONING",)}}

    def combine(self, conditioning_1: Conditioning, conditioning_2: Conditioning) -> tuple[Conditioning]:
        return ([*conditioning_1, *conditioning_2],)


def average_tokens(to: Tensor, other: Tensor, strength: float) -> Tensor:
    """strength x to + (1 - strength) x other; `other` (b, s, d) is cut or zero-padded to the length of `to`."""
    other = other[:, : to.shape[1]]
    missing = to.shape[1] - other.shape[1]
    if missing > 0:
        other = torch.cat([other, other.new_zeros((other.shape[0], missing, *other.shape[2:]))], dim=1)
    return to * strength + other * (1.0 - strength)


class ConditioningAverage:
    """A mix of each entry of one conditioning with the first entry of another."""

    CATEGORY, FUNCTION, RETURN_TYPES = "conditioning", "addWeighted", ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "conditioning_to": ("CONDITIONING",),
                "conditioning_from": ("CONDITIONING",),
                "conditioning_to_strength": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}),
            }
        }

    def addWeighted(
        self, conditioning_to: Conditioning, conditioning_from: Conditioning, conditioning_to_strength: float
    ) -> tuple[Conditioning]:
        other, other_options = _first(conditioning_from)
        other_pooled = other_options.get("pooled_output")
        mixed: Conditioning = []
        for tokens, options in conditioning_to:
            changed = dict(options)
            pooled = options.get("pooled_output", other_pooled)
            if pooled is not None and other_pooled is not None:
                changed["pooled_output"] = pooled * conditioning_to_strength + other_pooled * (1.0 - conditioning_to_strength)
            elif pooled is not None:
                changed["pooled_output"] = pooled
            mixed.append([average_tokens(tokens, other, conditioning_to_strength), changed])
        return (mixed,)


def _first(conditioning: Conditioning) -> tuple[Tensor, dict[str, Any]]:
    if not conditioning:
        raise InputUnusable("The conditioning is empty.", input="conditioning_from")
    tokens, options = conditioning[0]
    return tokens, options


class ConditioningConcat:
    """The tokens of another conditioning's first entry behind those of each entry."""

    CATEGORY, FUNCTION, RETURN_TYPES = "conditioning", "concat", ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"conditioning_to": ("CONDITIONING",), "conditioning_from": ("CONDITIONING",)}}

    def concat(self, conditioning_to: Conditioning, conditioning_from: Conditioning) -> tuple[Conditioning]:
        other, _ = _first(conditioning_from)
        return ([[torch.cat([tokens, other], dim=1), dict(options)] for tokens, options in conditioning_to],)


class ConditioningSetArea:
    """Let a conditioning count in a rectangle, given in pixels."""

    CATEGORY, FUNCTION, RETURN_TYPES = "conditioning", "append", ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        size = ("INT", {"default": 64, "min": 64, "max": MAX_RESOLUTION, "step": 8})
        offset = ("INT", {"default": 0, "min": 0, "max": MAX_RESOLUTION, "step": 8})
        return {
            "required": {"conditioning": ("CONDITIONING",), "width": size, "height": size, "x": offset, "y": offset, "strength": STRENGTH}
        }

    def append(self, conditioning: Conditioning, width: int, height: int, x: int, y: int, strength: float) -> tuple[Conditioning]:
        area = (height // 8, width // 8, y // 8, x // 8)
        return (conditioning_set_values(conditioning, {"area": area, "strength": strength, "set_area_to_bounds": False}),)


class ConditioningSetAreaPercentage:
    """Let a conditioning count in a rectangle, given in parts of the picture."""

    CATEGORY, FUNCTION, RETURN_TYPES = "conditioning", "append", ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        size = ("FLOAT", {"default": 1.0, "min": 0, "max": 1.0, "step": 0.01})
        offset = ("FLOAT", {"default": 0, "min": 0, "max": 1.0, "step": 0.01})
        return {
            "required": {"conditioning": ("CONDITIONING",), "width": size, "height": size, "x": offset, "y": offset, "strength": STRENGTH}
        }

    def append(self, conditioning: Conditioning, width: float, height: float, x: float, y: float, strength: float) -> tuple[Conditioning]:
        area = ("percentage", height, width, y, x)
        return (conditioning_set_values(conditioning, {"area": area, "strength": strength, "set_area_to_bounds": False}),)


class ConditioningSetAreaStrength:
    """Weigh a conditioning against the others."""

    CATEGORY, FUNCTION, RETURN_TYPES = "conditioning", "append", ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"conditioning": ("CONDITIONING",), "strength": STRENGTH}}

    def append(self, conditioning: Conditioning, strength: float) -> tuple[Conditioning]:
        return (conditioning_set_values(conditioning, {"strength": strength}),)


class ConditioningSetMask:
    """Let a conditioning count where a mask is bright."""

    CATEGORY, FUNCTION, RETURN_TYPES = "conditioning", "append", ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "conditioning": ("CONDITIONING",),
                "mask": ("MASK",),
                "strength": STRENGTH,
                "set_cond_area": (["default", "mask bounds"],),
            }
        }

    def append(self, conditioning: Conditioning, mask: Tensor, set_cond_area: str, strength: float) -> tuple[Conditioning]:
        if mask.ndim < 3:
            mask = mask.unsqueeze(0)
        values = {"mask": mask, "set_area_to_bounds": set_cond_area != "default", "mask_strength": strength}
        return (conditioning_set_values(conditioning, values),)


class ConditioningZeroOut:
    """A conditioning of zeros, tokens and pooled output."""

    CATEGORY, FUNCTION, RETURN_TYPES = "advanced/conditioning", "zero_out", ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"conditioning": ("CONDITIONING",)}}

    def zero_out(self, conditioning: Conditioning) -> tuple[Conditioning]:
        zeroed: Conditioning = []
        for tokens, options in conditioning:
            changed = dict(options)
            for name in ("pooled_output", "conditioning_lyrics"):
                if changed.get(name) is not None:
                    changed[name] = torch.zeros_like(changed[name])
            zeroed.append([torch.zeros_like(tokens), changed])
        return (zeroed,)


class ConditioningSetTimestepRange:
    """Let a conditioning count during a part of the sampling."""

    CATEGORY, FUNCTION, RETURN_TYPES = "advanced/conditioning", "set_range", ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "conditioning": ("CONDITIONING",),
                "start": ("FLOAT", {"default": 0.0, "min": 0.0, "max": 1.0, "step": 0.001}),
                "end": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.001}),
            }
        }

    def set_range(self, conditioning: Conditioning, start: float, end: float) -> tuple[Conditioning]:
        return (conditioning_set_values(conditioning, {"start_percent": start, "end_percent": end}),)


NODE_CLASS_MAPPINGS = {
    cls.__name__: cls
    for cls in (
        CLIPTextEncode,
        CLIPSetLastLayer,
        ConditioningAverage,
        ConditioningCombine,
        ConditioningConcat,
        ConditioningSetArea,
        ConditioningSetAreaPercentage,
        ConditioningSetAreaStrength,
        ConditioningSetMask,
        ConditioningZeroOut,
        ConditioningSetTimestepRange,
    )
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "CLIPTextEncode": "CLIP Text Encode (Prompt)",
    "CLIPSetLastLayer": "CLIP Set Last Layer",
    "ConditioningCombine": "Conditioning (Combine)",
    "ConditioningAverage": "ConditioningAverage",
    "ConditioningConcat": "Conditioning (Concat)",
    "ConditioningSetArea": "Conditioning (Set Area)",
    "ConditioningSetAreaPercentage": "Conditioning (Set Area with Percentage)",
    "ConditioningSetMask": "Conditioning (Set Mask)",
    "ConditioningZeroOut": "ConditioningZeroOut",
    "ConditioningSetTimestepRange": "ConditioningSetTimestepRange",
}
