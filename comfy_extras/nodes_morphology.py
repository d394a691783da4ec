"""Nodes for shapes and colour spaces. Maths: comfy/pixels/morphology.py; rules: goldens README, section G."""

from __future__ import annotations

import torch

from comfy.nodes.v3 import io
from comfy.pixels import morphology


class ImageMorphology(io.ComfyNode):
    """Grow and shrink what is bright."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Morphology",
            display_name="ImageMorphology",
            category="image/postprocessing",
            inputs=[
                io.Image.Input("image"),
                io.Combo.Input("operation", options=list(morphology.OPERATIONS)),
                io.Int.Input("kernel_size", default=3, min=3, max=999, step=1),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, operation: str, kernel_size: int) -> io.NodeOutput:
        return io.NodeOutput(morphology.morphology(image, operation, kernel_size))


class ImageRGBToYUV(io.ComfyNode):
    """Brightness and two colour differences as grey pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImageRGBToYUV",
            category="image/batch",
            inputs=[io.Image.Input("image")],
            outputs=[io.Image.Output(display_name=name) for name in ("Y", "U", "V")],
        )

    @classmethod
    def execute(cls, image: torch.Tensor) -> io.NodeOutput:
        return io.NodeOutput(*morphology.rgb_to_yuv(image))


class ImageYUVToRGB(io.ComfyNode):
    """The inverse."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImageYUVToRGB",
            category="image/batch",
            inputs=[io.Image.Input(name) for name in ("Y", "U", "V")],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, Y: torch.Tensor, U: torch.Tensor, V: torch.Tensor) -> io.NodeOutput:
        return io.NodeOutput(morphology.yuv_to_rgb(Y, U, V))


NODES: list[type[io.ComfyNode]] = [ImageMorphology, ImageRGBToYUV, ImageYUVToRGB]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
