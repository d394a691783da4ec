"""Guidance and areas for models of videos whose frames are the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from comfy.nodes.conventions import Conditioning, conditioning_set_values
from comfy.nodes.v1 import required, rounded

#: (least scale, scale, frames) -> scale of each frame
Course = Callable[[float, float, int], Tensor]


def linear(least: float, scale: float, frames: int) -> Tensor:
    """From the least scale at the first frame to the whole at the last. Blattmann et al. 2023, arXiv:2311.15127, appendix D."""
    return torch.linspace(least, scale, frames)


def triangle(least: float, scale: float, frames: int) -> Tensor:
    """Up to the whole scale in the middle and down again, for orbits. Voleti et al. 2024, arXiv:2403.12008, section 3.3."""
    return least + (scale - least) * (1.0 - (2.0 * torch.linspace(0, 1, frames) - 1.0).abs())


def guided(course: Course, least: float) -> Callable[[dict[str, Any]], Tensor]:
    """A guidance function whose scale differs from frame to frame of the batch."""

    def guide(args: dict[str, Any]) -> Tensor:
        cond, uncond = args["cond"], args["uncond"]
        scale = course(least, args["cond_scale"], len(cond)).to(cond).reshape(-1, *[1] * (cond.ndim - 1))
        return uncond + scale * (cond - uncond)

    return guide


class VideoLinearCFGGuidance:
    """Guidance that grows from frame to frame."""

    CATEGORY, FUNCTION, RETURN_TYPES = "sampling/video_models", "patch", ("MODEL",)
    COURSE = staticmethod(linear)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        low = ("FLOAT", {"default": 1.0, "min": 0.0, "max": 100.0, "step": 0.5, "round": 0.01})
        return required(model=("MODEL",), min_cfg=low)

    def patch(self, model: Any, min_cfg: float) -> tuple[Any]:
        changed = model.clone()
        changed.set_model_sampler_cfg_function(guided(self.COURSE, min_cfg))
        return (changed,)


class VideoTriangleCFGGuidance(VideoLinearCFGGuidance):
    """Guidance that grows to the middle frame and shrinks again."""

    COURSE = staticmethod(triangle)


class ConditioningSetAreaPercentageVideo:
    """Let a conditioning act in a part of the video, given in fractions of its sides and its length."""

    CATEGORY, FUNCTION, RETURN_TYPES = "conditioning", "append", ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        sizes = {name: rounded(1.0, 0, 1.0) for name in ("width", "height", "temporal")}
        offsets = {name: rounded(0, 0, 1.0) for name in ("x", "y", "z")}
        return required(conditioning=("CONDITIONING",), **sizes, **offsets, strength=rounded(1.0, 0.0, 10.0))

    def append(
        self,
        conditioning: Conditioning,
        width: float,
        height: float,
        temporal: float,
        x: float,
        y: float,
        z: float,
        strength: float,
    ) -> tuple[Conditioning]:
        area = ("percentage", temporal, height, width, z, y, x)
        return (conditioning_set_values(conditioning, {"area": area, "strength": strength, "set_area_to_bounds": False}),)


NODE_CLASS_MAPPINGS = {
    "VideoLinearCFGGuidance": VideoLinearCFGGuidance,
    "VideoTriangleCFGGuidance": VideoTriangleCFGGuidance,
    "ConditioningSetAreaPercentageVideo": ConditioningSetAreaPercentageVideo,
}
NODE_DISPLAY_NAME_MAPPINGS = {name: name for name in NODE_CLASS_MAPPINGS}
