"""Nodes that work with transparency. Maths: comfy/pixels/compositing.py; rules: goldens README, section G."""

from __future__ import annotations

import torch

from comfy.nodes.v3 import io
from comfy.pixels.compositing import PORTER_DUFF, join_alpha, porter_duff, split_alpha

CATEGORY = "mask/compositing"


class PorterDuffImageComposite(io.ComfyNode):
    """Two pictures with transparency as one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PorterDuffImageComposite",
            display_name="Porter-Duff Image Composite",
            category=CATEGORY,
            inputs=[
                io.Image.Input("source"),
                io.Mask.Input("source_alpha"),
                io.Image.Input("destination"),
                io.Mask.Input("destination_alpha"),
                io.Combo.Input("mode", options=list(PORTER_DUFF), default="DST"),
            ],
            outputs=[io.Image.Output(), io.Mask.Output()],
        )

    @classmethod
    def execute(
        cls, source: torch.Tensor, source_alpha: torch.Tensor, destination: torch.Tensor, destination_alpha: torch.Tensor, mode: str
    ) -> io.NodeOutput:
        return io.NodeOutput(*porter_duff(source, source_alpha, destination, destination_alpha, mode))


class SplitImageWithAlpha(io.ComfyNode):
    """Colours and transparency apart."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SplitImageWithAlpha",
            display_name="Split Image with Alpha",
            category=CATEGORY,
            inputs=[io.Image.Input("image")],
            outputs=[io.Image.Output(), io.Mask.Output()],
        )

    @classmethod
    def execute(cls, image: torch.Tensor) -> io.NodeOutput:
        return io.NodeOutput(*split_alpha(image))


class JoinImageWithAlpha(io.ComfyNode):
    """Colours and a mask as one picture with transparency."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoinImageWithAlpha",
            display_name="Join Image with Alpha",
            category=CATEGORY,
            inputs=[io.Image.Input("image"), io.Mask.Input("alpha")],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, alpha: torch.Tensor) -> io.NodeOutput:
        return io.NodeOutput(join_alpha(image, alpha))


NODES: list[type[io.ComfyNode]] = [PorterDuffImageComposite, SplitImageWithAlpha, JoinImageWithAlpha]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
