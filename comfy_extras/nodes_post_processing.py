"""Nodes that change pictures. Maths: comfy/pixels; rules: goldens README, section G."""

from __future__ import annotations

import torch

from comfy.nodes.conventions import IMAGE_UPSCALE_METHODS
from comfy.nodes.v3 import io
from comfy.pixels import blend, quantize
from comfy.pixels.resize import resize_images, total_pixels

CATEGORY = "image/postprocessing"


class ImageBlend(io.ComfyNode):
    """Mix two pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImageBlend",
            category=CATEGORY,
            inputs=[
                io.Image.Input("image1"),
                io.Image.Input("image2"),
                io.Float.Input("blend_factor", default=0.5, min=0.0, max=1.0, step=0.01),
                io.Combo.Input("blend_mode", options=list(blend.BLEND_MODES)),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image1: torch.Tensor, image2: torch.Tensor, blend_factor: float, blend_mode: str) -> io.NodeOutput:
        return io.NodeOutput(blend.blend(image1, image2, blend_factor, blend_mode))


class ImageBlur(io.ComfyNode):
    """Gaussian blur."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImageBlur",
            category=CATEGORY,
            inputs=[
                io.Image.Input("image"),
                io.Int.Input("blur_radius", default=1, min=1, max=31, step=1),
                io.Float.Input("sigma", default=1.0, min=0.1, max=10.0, step=0.1),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, blur_radius: int, sigma: float) -> io.NodeOutput:
        return io.NodeOutput(blend.blur(image, blur_radius, sigma))


class ImageQuantize(io.ComfyNode):
    """Few colours."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        dithers = ["none", "floyd-steinberg", "bayer-2", "bayer-4", "bayer-8", "bayer-16"]
        return io.Schema(
            node_id="ImageQuantize",
            category=CATEGORY,
            inputs=[
                io.Image.Input("image"),
                io.Int.Input("colors", default=256, min=1, max=256, step=1),
                io.Combo.Input("dither", options=dithers),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, colors: int, dither: str) -> io.NodeOutput:
        return io.NodeOutput(quantize.quantize(image, colors, dither))


class ImageSharpen(io.ComfyNode):
    """Unsharp masking."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImageSharpen",
            category=CATEGORY,
            inputs=[
                io.Image.Input("image"),
                io.Int.Input("sharpen_radius", default=1, min=1, max=31, step=1),
                io.Float.Input("sigma", default=1.0, min=0.1, max=10.0, step=0.01),
                io.Float.Input("alpha", default=1.0, min=0.0, max=5.0, step=0.01),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, sharpen_radius: int, sigma: float, alpha: float) -> io.NodeOutput:
        return io.NodeOutput(blend.sharpen(image, sharpen_radius, sigma, alpha))


class ImageScaleToTotalPixels(io.ComfyNode):
    """Resize to a number of pixels, keeping the aspect."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImageScaleToTotalPixels",
            category="image/upscaling",
            inputs=[
                io.Image.Input("image"),
                io.Combo.Input("upscale_method", options=IMAGE_UPSCALE_METHODS),
                io.Float.Input("megapixels", default=1.0, min=0.01, max=16.0, step=0.01),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, upscale_method: str, megapixels: float) -> io.NodeOutput:
        width, height = total_pixels(image.shape[2], image.shape[1], megapixels)
        return io.NodeOutput(resize_images(image, width, height, upscale_method))


NODES: list[type[io.ComfyNode]] = [ImageBlend, ImageBlur, ImageQuantize, ImageSharpen, ImageScaleToTotalPixels]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
