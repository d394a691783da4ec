"""Self-attention in tiles. Maths: comfy/sampling/network_patches/hypertile.py."""

from __future__ import annotations

from typing import Any

from comfy.nodes.v3 import io
from comfy.sampling.network_patches import hypertile, places


class HyperTile(io.ComfyNode):
    """Faster self-attention for large pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HyperTile",
            category="model_patches/unet",
            inputs=[
                io.Model.Input("model"),
                io.Int.Input("tile_size", default=256, min=1, max=2048),
                io.Int.Input("swap_size", default=2, min=1, max=128),
                io.Int.Input("max_depth", default=0, min=0, max=10),
                io.Boolean.Input("scale_depth", default=False),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, tile_size: int, swap_size: int, max_depth: int, scale_depth: bool) -> io.NodeOutput:
        patch = hypertile.HyperTile(tile_size, swap_size, max_depth, scale_depth)
        changed = model.clone()
        changed.set_model_emb_patch(places.remember_step)
        changed.set_model_attn1_patch(patch.cut)
        changed.set_model_attn1_output_patch(patch.join)
        return io.NodeOutput(changed)


NODES: list[type[io.ComfyNode]] = [HyperTile]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
