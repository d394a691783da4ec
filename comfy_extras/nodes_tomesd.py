"""Token merging. Maths: comfy/sampling/network_patches/token_merging.py."""

from __future__ import annotations

from typing import Any

from comfy.nodes.v3 import io
from comfy.sampling.network_patches import places, token_merging


class TomePatchModel(io.ComfyNode):
    """Faster self-attention: tokens that are alike are merged."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TomePatchModel",
            category="model_patches/unet",
            inputs=[io.Model.Input("model"), io.Float.Input("ratio", default=0.3, min=0.0, max=1.0, step=0.01)],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, ratio: float) -> io.NodeOutput:
        patch = token_merging.TokenMerging(ratio)
        changed = model.clone()
        changed.set_model_emb_patch(places.remember_step)
        changed.set_model_attn1_patch(patch.merge)
        changed.set_model_attn1_output_patch(patch.unmerge)
        return io.NodeOutput(changed)


NODES: list[type[io.ComfyNode]] = [TomePatchModel]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
