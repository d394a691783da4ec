"""Nodes of the Cosmos video family."""

from __future__ import annotations

from comfy.nodes.conventions import MAX_RESOLUTION
from comfy.nodes.v3 import io
from comfy.pixels import latents

#: channels of the family's latents, and pixels per cell along time, height and width (goldens README, section F)
CHANNELS, RATIO = 16, (8, 8, 8)


class EmptyCosmosLatentVideo(io.ComfyNode):
    """Zeros for a text-to-video run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EmptyCosmosLatentVideo",
            category="latent/video",
            inputs=[
                io.Int.Input("width", default=1280, min=16, max=MAX_RESOLUTION, step=16),
                io.Int.Input("height", default=704, min=16, max=MAX_RESOLUTION, step=16),
                io.Int.Input("length", default=121, min=1, max=MAX_RESOLUTION, step=8),
                io.Int.Input("batch_size", default=1, min=1, max=4096),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width: int, height: int, length: int, batch_size: int = 1) -> io.NodeOutput:
        return io.NodeOutput({"samples": latents.empty_video(width, height, length, batch_size, CHANNELS, RATIO)})


NODES: list[type[io.ComfyNode]] = [EmptyCosmosLatentVideo]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
