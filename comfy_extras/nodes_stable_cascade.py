"""Nodes of the Stable Cascade family (goldens README, section F: stage C has 16 channels, stage B 4)."""

from __future__ import annotations

import torch

from comfy.nodes.conventions import MAX_RESOLUTION
from comfy.nodes.v3 import io


class StableCascade_EmptyLatentImage(io.ComfyNode):
    """Zeros for both stages; `compression` is pixels per cell of stage C, stage B has 4."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableCascade_EmptyLatentImage",
            category="latent/stable_cascade",
            inputs=[
                io.Int.Input("width", default=1024, min=256, max=MAX_RESOLUTION, step=8),
                io.Int.Input("height", default=1024, min=256, max=MAX_RESOLUTION, step=8),
                io.Int.Input("compression", default=42, min=4, max=128, step=1),
                io.Int.Input("batch_size", default=1, min=1, max=4096),
            ],
            outputs=[io.Latent.Output(display_name="stage_c"), io.Latent.Output(display_name="stage_b")],
        )

    @classmethod
    def execute(cls, width: int, height: int, compression: int, batch_size: int = 1) -> io.NodeOutput:
        stage_c = torch.zeros((batch_size, 16, height // compression, width // compression), device="cpu")
        stage_b = torch.zeros((batch_size, 4, height // 4, width // 4), device="cpu")
        return io.NodeOutput({"samples": stage_c}, {"samples": stage_b})


NODES: list[type[io.ComfyNode]] = [StableCascade_EmptyLatentImage]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
