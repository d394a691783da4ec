"""Epsilon scaling against exposure bias. Ning et al. 2023, arXiv:2308.15321."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from comfy.nodes.v3 import io


@dataclass(frozen=True)
class ScaleEpsilon:
    """x - (x - x0) / k after guidance."""

    factor: float

    def __call__(self, args: dict[str, Any]) -> Tensor:
        x: Tensor = args["input"]
        return x - (x - args["denoised"]) / self.factor


class EpsilonScaling(io.ComfyNode):
    """Make the predicted noise a little smaller."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Epsilon Scaling",
            category="model_patches/unet",
            inputs=[
                io.Model.Input("model"),
                io.Float.Input("scaling_factor", default=1.005, min=0.5, max=1.5, step=0.001, display_mode=io.NumberDisplay.number),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, scaling_factor: float) -> io.NodeOutput:
        changed = model.clone()
        changed.set_model_sampler_post_cfg_function(ScaleEpsilon(scaling_factor or 1e-9))
        return io.NodeOutput(changed)


NODE_CLASS_MAPPINGS = {"Epsilon Scaling": EpsilonScaling}
