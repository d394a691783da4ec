"""Nodes of the Mochi video family."""

from __future__ import annotations

from comfy.nodes.conventions import MAX_RESOLUTION
from comfy.nodes.v3 import io
from comfy.pixels import latents

#: channels of the family's latents, and pixels per cell along time, height and width (goldens README, section F)
CHANNELS, RATIO = 12, (6, 8, 8)


class EmptyMochiLatentVideo(io.ComfyNode):
    """Zeros for a text-to-video run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EmptyMochiLatentVideo",
            category="latent/video",
            inputs=[
                io.Int.Input("width", default=848, min=16, max=MAX_RESOLUTION, step=16),
                io.Int.Input("height", default=480, min=16, max=MAX_RESOLUTION, step=16),
                io.Int.Input("length", default=25, min=7, max=MAX_RESOLUTION, step=6),
                io.Int.Input("batch_size", default=1, min=1, max=4096),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width: int, height: int, length: int, batch_size: int = 1) -> io.NodeOutput:
        return io.NodeOutput({"samples": latents.empty_video(width, height, length, batch_size, CHANNELS, RATIO)})


NODES: list[type[io.ComfyNode]] = [EmptyMochiLatentVideo]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
