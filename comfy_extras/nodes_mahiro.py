"""Mahiro's guidance. Maths: comfy/sampling/variants.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from comfy.nodes.v3 import io
from comfy.sampling import variants

TITLE = "Mahiro is so cute that she deserves a better guidance function!! (。・ω・。)"


def after_guidance(args: dict[str, Any]) -> Tensor:
    """The mix of the guided and the scaled positive prediction."""
    return variants.mahiro(args["cond_denoised"], args["uncond_denoised"], args["cond_scale"], args["denoised"])


class Mahiro(io.ComfyNode):
    """Guidance that follows the positive's direction more than the difference from the negative."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Mahiro",
            display_name=TITLE,
            category="_for_testing",
            is_experimental=True,
            inputs=[io.Model.Input("model")],
            outputs=[io.Model.Output(display_name="patched_model")],
        )

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        changed = model.clone()
        changed.set_model_sampler_post_cfg_function(after_guidance)
        return io.NodeOutput(changed)


NODE_CLASS_MAPPINGS = {"Mahiro": Mahiro}
NODE_DISPLAY_NAME_MAPPINGS = {"Mahiro": TITLE}
