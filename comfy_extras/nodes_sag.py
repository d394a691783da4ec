"""Self-attention guidance. Maths: comfy/sampling/network_patches/perturbed.py."""

from __future__ import annotations

from typing import Any

from comfy.nodes.v3 import io
from comfy.sampling.network_patches import perturbed


class SelfAttentionGuidance(io.ComfyNode):
    """Guidance away from blurred detail."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SelfAttentionGuidance",
            display_name="Self-Attention Guidance",
            category="_for_testing",
            is_experimental=True,
            inputs=[
                io.Model.Input("model"),
                io.Float.Input("scale", default=0.5, min=-2.0, max=5.0, step=0.01),
                io.Float.Input("blur_sigma", default=2.0, min=0.0, max=10.0, step=0.1),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, scale: float, blur_sigma: float) -> io.NodeOutput:
        patch = perturbed.SelfAttentionGuidance(scale, blur_sigma)
        changed = model.clone()
        changed.set_model_attn1_replace(patch.attend, *perturbed.MIDDLE, 0)
        changed.set_model_sampler_post_cfg_function(patch, disable_cfg1_optimization=True)
        return io.NodeOutput(changed)


NODES: list[type[io.ComfyNode]] = [SelfAttentionGuidance]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
