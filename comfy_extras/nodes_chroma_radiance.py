"""Nodes of the Chroma Radiance family, which works on pixels themselves."""

from __future__ import annotations

import torch

from comfy.nodes.conventions import MAX_RESOLUTION
from comfy.nodes.v3 import io


class EmptyChromaRadianceLatentImage(io.ComfyNode):
    """Zeros of the picture's own size and channels (goldens README, section F: pixel space)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EmptyChromaRadianceLatentImage",
            category="latent/chroma_radiance",
            inputs=[
                io.Int.Input("width", default=1024, min=16, max=MAX_RESOLUTION, step=16),
                io.Int.Input("height", default=1024, min=16, max=MAX_RESOLUTION, step=16),
                io.Int.Input("batch_size", default=1, min=1, max=4096),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width: int, height: int, batch_size: int = 1) -> io.NodeOutput:
        return io.NodeOutput({"samples": torch.zeros((batch_size, 3, height, width), device="cpu")})


NODES: list[type[io.ComfyNode]] = [EmptyChromaRadianceLatentImage]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
