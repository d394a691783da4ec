"""Nodes of the SD3 family."""

from __future__ import annotations

from comfy.nodes.conventions import MAX_RESOLUTION
from comfy.nodes.v3 import io
from comfy.pixels import latents

#: channels of the family's latents (goldens README, section F)
CHANNELS = 16


class EmptySD3LatentImage(io.ComfyNode):
    """Zeros for a text-to-image run with 16 latent channels."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EmptySD3LatentImage",
            category="latent/sd3",
            inputs=[
                io.Int.Input("width", default=1024, min=16, max=MAX_RESOLUTION, step=16),
                io.Int.Input("height", default=1024, min=16, max=MAX_RESOLUTION, step=16),
                io.Int.Input("batch_size", default=1, min=1, max=4096),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width: int, height: int, batch_size: int = 1) -> io.NodeOutput:
        return io.NodeOutput({"samples": latents.empty(width, height, batch_size, CHANNELS)})


NODES: list[type[io.ComfyNode]] = [EmptySD3LatentImage]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
