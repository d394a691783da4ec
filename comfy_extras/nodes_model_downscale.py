"""Deep Shrink. Maths: comfy/sampling/network_patches/deep_shrink.py."""

from __future__ import annotations

from typing import Any

from comfy.nodes.v3 import io
from comfy.sampling.network_patches.deep_shrink import DeepShrink

METHODS = ["bicubic", "nearest-exact", "bilinear", "area", "bislerp"]


class PatchModelAddDownscale(io.ComfyNode):
    """Deep blocks on a smaller map in the first steps, for pictures larger than the model knows."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PatchModelAddDownscale",
            display_name="PatchModelAddDownscale (Kohya Deep Shrink)",
            category="model_patches/unet",
            inputs=[
                io.Model.Input("model"),
                io.Int.Input("block_number", default=3, min=1, max=32, step=1),
                io.Float.Input("downscale_factor", default=2.0, min=0.1, max=9.0, step=0.001),
                io.Float.Input("start_percent", default=0.0, min=0.0, max=1.0, step=0.001),
                io.Float.Input("end_percent", default=0.35, min=0.0, max=1.0, step=0.001),
                io.Boolean.Input("downscale_after_skip", default=True),
                io.Combo.Input("downscale_method", options=METHODS),
                io.Combo.Input("upscale_method", options=METHODS),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        block_number: int,
        downscale_factor: float,
        start_percent: float,
        end_percent: float,
        downscale_after_skip: bool,
        downscale_method: str,
        upscale_method: str,
    ) -> io.NodeOutput:
        sampling = model.get_model_object("model_sampling")
        start, end = (float(sampling.percent_to_sigma(percent)) for percent in (start_percent, end_percent))
        patch = DeepShrink(block_number, downscale_factor, start, end, downscale_method, upscale_method)
        changed = model.clone()
        if downscale_after_skip:
            changed.set_model_input_block_patch_after_skip(patch.shrink)
        else:
            changed.set_model_input_block_patch(patch.shrink)
        changed.set_model_output_block_patch(patch.grow)
        return io.NodeOutput(changed)


NODES: list[type[io.ComfyNode]] = [PatchModelAddDownscale]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
