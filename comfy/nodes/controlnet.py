"""Nodes that steer a sampling by a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from comfy import folders
from comfy.errors import InputUnusable
from comfy.nodes.conventions import Conditioning
from comfy.nodes.v1 import required, rounded

FOLDER = "controlnet"


def with_control(
    conditioning: Conditioning, control: Any, hint: torch.Tensor, strength: float, to_uncond: bool, made: dict[Any, Any], **more: Any
) -> Conditioning:
    """The conditioning with `control` in each entry, before it those that the entry had.

    hint  (b, c, h, w); made: control before -> copy of `control` after it: entries that share one share a batch
    """
    changed: Conditioning = []
    for tokens, options in conditioning:
        before = options.get("control")
        if before not in made:
            made[before] = control.copy().set_cond_hint(hint, strength, **more)
            made[before].set_previous_controlnet(before)
        changed.append([tokens, {**options, "control": made[before], "control_apply_to_uncond": to_uncond}])
    return changed


def as_hint(control: Any, image: torch.Tensor) -> torch.Tensor:
    """A picture (b, h, w, c) as (b, 3, h, w). Raises InputUnusable."""
    if control is None:
        raise InputUnusable("There is no ControlNet.", field="control_net")
    if image.ndim != 4 or image.shape[-1] < 3 or 0 in image.shape:
        raise InputUnusable("The hint must be a picture with three channels.", shape=list(image.shape), field="image")
    return image[..., :3].movedim(-1, 1)


class ControlNetLoader:
    """A ControlNet from a file."""

    CATEGORY, FUNCTION, RETURN_TYPES = "loaders", "load_controlnet", ("CONTROL_NET",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(control_net_name=(folders.current().filename_list(FOLDER),))

    def load_controlnet(self, control_net_name: str) -> tuple[Any]:
        return (_load(control_net_name),)


class DiffControlNetLoader:
    """A ControlNet from a file that may hold differences to a model's weights."""

    CATEGORY, FUNCTION, RETURN_TYPES = "loaders", "load_controlnet", ("CONTROL_NET",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(model=("MODEL",), control_net_name=(folders.current().filename_list(FOLDER),))

    def load_controlnet(self, model: Any, control_net_name: str) -> tuple[Any]:
        return (_load(control_net_name, model),)


def _load(name: str, model: Any = None) -> Any:
    from comfy.models.control import load_controlnet  # pulls in networks: not needed to list the nodes

    return load_controlnet(folders.current().full_path_or_raise(FOLDER, name), model)


class ControlNetApply:
    """Steer a positive conditioning, and the negative with it."""

    CATEGORY, FUNCTION, RETURN_TYPES = "conditioning/controlnet", "apply_controlnet", ("CONDITIONING",)
    DEPRECATED = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        strength = rounded(1.0, 0.0, 10.0)
        return required(conditioning=("CONDITIONING",), control_net=("CONTROL_NET",), image=("IMAGE",), strength=strength)

    def apply_controlnet(self, conditioning: Conditioning, control_net: Any, image: torch.Tensor, strength: float) -> tuple[Conditioning]:
        if strength == 0:
            return (conditioning,)
        return (with_control(conditioning, control_net, as_hint(control_net, image), strength, True, {}),)


class ControlNetApplyAdvanced:
    """Steer both conditionings, for a part of the steps."""

    CATEGORY, FUNCTION = "conditioning/controlnet", "apply_controlnet"
    RETURN_TYPES, RETURN_NAMES = ("CONDITIONING", "CONDITIONING"), ("positive", "negative")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        inputs = required(
            positive=("CONDITIONING",),
            negative=("CONDITIONING",),
            control_net=("CONTROL_NET",),
            image=("IMAGE",),
            strength=rounded(1.0, 0.0, 10.0),
            start_percent=rounded(0.0, 0.0, 1.0, 0.001),
            end_percent=rounded(1.0, 0.0, 1.0, 0.001),
        )
        return {**inputs, "optional": {"vae": ("VAE",)}}

    def apply_controlnet(
        self,
        positive: Conditioning,
        negative: Conditioning,
        control_net: Any,
        image: torch.Tensor,
        strength: float,
        start_percent: float,
        end_percent: float,
        vae: Any = None,
        extra_concat: Sequence[Any] = (),
    ) -> tuple[Conditioning, Conditioning]:
        if strength == 0:
            return positive, negative
        hint, made = as_hint(control_net, image), dict[Any, Any]()
        more = {"timestep_percent_range": (start_percent, end_percent), "vae": vae, "extra_concat": list(extra_concat)}
        steered = [with_control(side, control_net, hint, strength, False, made, **more) for side in (positive, negative)]
        return steered[0], steered[1]


NODE_CLASS_MAPPINGS = {
    "ControlNetLoader": ControlNetLoader,
    "DiffControlNetLoader": DiffControlNetLoader,
    "ControlNetApply": ControlNetApply,
    "ControlNetApplyAdvanced": ControlNetApplyAdvanced,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "ControlNetLoader": "Load ControlNet Model",
    "DiffControlNetLoader": "Load ControlNet Model (diff)",
    "ControlNetApply": "Apply ControlNet (OLD)",
    "ControlNetApplyAdvanced": "Apply ControlNet",
}
