"""Perturbed-attention guidance. Maths: comfy/sampling/network_patches/perturbed.py."""

from __future__ import annotations

from typing import Any

from comfy.nodes.v3 import io
from comfy.sampling.network_patches import perturbed


class PerturbedAttentionGuidance(io.ComfyNode):
    """Guidance away from a network with spoilt self-attention."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PerturbedAttentionGuidance",
            category="model_patches/unet",
            inputs=[io.Model.Input("model"), io.Float.Input("scale", default=3.0, min=0.0, max=100.0, step=0.01, round=0.01)],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, scale: float) -> io.NodeOutput:
        changed = model.clone()
        changed.set_model_sampler_post_cfg_function(perturbed.PerturbedAttention(scale))
        return io.NodeOutput(changed)


NODES: list[type[io.ComfyNode]] = [PerturbedAttentionGuidance]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
