"""Conditioning of models that edit a picture by an instruction. Brooks et al. 2022, arXiv:2211.09800, section 3.2."""

from __future__ import annotations

from typing import Any

import torch

from comfy.nodes.conventions import Conditioning, conditioning_set_values
from comfy.nodes.v3 import io
from comfy.nodes.vae import present


class InstructPixToPixConditioning(io.ComfyNode):
    """The picture's latent beside the noise, for both conditionings, and an empty latent of its size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InstructPixToPixConditioning",
            category="conditioning/instructpix2pix",
            inputs=[
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                io.Vae.Input("vae"),
                io.Image.Input("pixels"),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
                io.Latent.Output(display_name="latent"),
            ],
        )

    @classmethod
    def execute(cls, positive: Conditioning, negative: Conditioning, vae: Any, pixels: torch.Tensor) -> io.NodeOutput:
        picture = present(vae).encode(pixels[..., :3])
        values = {"concat_latent_image": picture}
        both = (conditioning_set_values(conditioning, values) for conditioning in (positive, negative))
        return io.NodeOutput(*both, {"samples": torch.zeros_like(picture)})


NODES: list[type[io.ComfyNode]] = [InstructPixToPixConditioning]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
