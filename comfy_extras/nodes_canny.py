"""Edges of a picture. From the paper (Canny 1986), not compared with the reference's pictures."""

from __future__ import annotations

import torch

from comfy.nodes.v3 import io
from comfy.pixels.morphology import canny


class Canny(io.ComfyNode):
    """White edges on black."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Canny",
            category="image/preprocessors",
            inputs=[
                io.Image.Input("image"),
                io.Float.Input("low_threshold", default=0.4, min=0.01, max=0.99, step=0.01),
                io.Float.Input("high_threshold", default=0.8, min=0.01, max=0.99, step=0.01),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, low_threshold: float, high_threshold: float) -> io.NodeOutput:
        return io.NodeOutput(canny(image, low_threshold, high_threshold))


NODES: list[type[io.ComfyNode]] = [Canny]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
