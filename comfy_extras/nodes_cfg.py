"""Guidance rules that correct the guided prediction. Maths: comfy/sampling/variants.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from comfy.nodes.v3 import io
from comfy.sampling import variants


def zero_star(args: dict[str, Any]) -> Tensor:
    """CFG-Zero* after guidance."""
    return variants.zero_star(args["cond_denoised"], args["uncond_denoised"], args["cond_scale"], args["input"], args["denoised"])


@dataclass(frozen=True)
class LimitNorm:
    """CFGNorm after guidance."""

    strength: float

    def __call__(self, args: dict[str, Any]) -> Tensor:
        return variants.norm_limited(args["cond_denoised"], args["denoised"], self.strength)


class CFGZeroStar(io.ComfyNode):
    """CFG-Zero*: the negative is scaled to fit the positive."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CFGZeroStar",
            category="advanced/guidance",
            inputs=[io.Model.Input("model")],
            outputs=[io.Model.Output(display_name="patched_model")],
        )

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        changed = model.clone()
        changed.set_model_sampler_post_cfg_function(zero_star)
        return io.NodeOutput(changed)


class CFGNorm(io.ComfyNode):
    """Keep guidance from making the prediction longer than the positive's."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CFGNorm",
            category="advanced/guidance",
            is_experimental=True,
            inputs=[io.Model.Input("model"), io.Float.Input("strength", default=1.0, min=0.0, max=100.0, step=0.01)],
            outputs=[io.Model.Output(display_name="patched_model")],
        )

    @classmethod
    def execute(cls, model: Any, strength: float) -> io.NodeOutput:
        changed = model.clone()
        changed.set_model_sampler_post_cfg_function(LimitNorm(strength))
        return io.NodeOutput(changed)


NODE_CLASS_MAPPINGS = {"CFGZeroStar": CFGZeroStar, "CFGNorm": CFGNorm}
