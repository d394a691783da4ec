"""Enlarge pictures by a network. Networks and files: comfy/ldm/upscale.py, comfy/models/upscale.py."""

from __future__ import annotations

from typing import Any

import torch

from comfy import control, folders
from comfy.errors import InputUnusable
from comfy.nodes.v3 import io
from comfy.pixels.tiling import get_tiled_scale_steps, tiled_scale

FOLDER = "upscale_models"
OVERLAP = 32


class UpscaleModelLoader(io.ComfyNode):
    """A file of `upscale_models`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UpscaleModelLoader",
            display_name="Load Upscale Model",
            category="loaders",
            inputs=[io.Combo.Input("model_name", options=folders.current().filename_list(FOLDER))],
            outputs=[io.UpscaleModel.Output()],
        )

    @classmethod
    def execute(cls, model_name: str) -> io.NodeOutput:
        from comfy.models.upscale import load_upscale_model  # pulls in networks: not needed to list the nodes

        return io.NodeOutput(load_upscale_model(folders.current().full_path_or_raise(FOLDER, model_name)))

    #: packs call it as a method of an instance
    load_model = execute


class ImageUpscaleWithModel(io.ComfyNode):
    """A picture enlarged in tiles, their overlaps blended."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImageUpscaleWithModel",
            display_name="Upscale Image (using Model)",
            category="image/upscaling",
            inputs=[io.UpscaleModel.Input("upscale_model"), io.Image.Input("image")],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, upscale_model: Any, image: torch.Tensor) -> io.NodeOutput:
        channels = upscale_model.input_channels
        if image.ndim != 4 or image.shape[-1] < channels or 0 in image.shape:
            raise InputUnusable("The picture does not fit the upscale model.", shape=list(image.shape), channels_needed=channels)
        pixels, tile = image[..., :channels].movedim(-1, 1), upscale_model.tile()
        steps = len(pixels) * get_tiled_scale_steps(pixels.shape[3], pixels.shape[2], tile, tile, OVERLAP)
        made = tiled_scale(
            pixels,
            lambda part: upscale_model(part).float(),
            tile_x=tile,
            tile_y=tile,
            overlap=OVERLAP,
            upscale_amount=upscale_model.scale,
            out_channels=upscale_model.output_channels,
            pbar=_Tiles(steps),
        )
        return io.NodeOutput(made.movedim(1, -1).clamp(0.0, 1.0).contiguous())

    upscale = execute


class _Tiles:
    """Tells the job how many tiles are done; raises Interrupted when it was asked to stop."""

    def __init__(self, total: int) -> None:
        self._done, self._total, self._job = 0, total, control.current()

    def update(self, value: int, /) -> None:
        self._done += value
        if self._job is not None:
            self._job.check()
            self._job.progress(self._done, self._total, None, self._job.node_id)


NODES: list[type[io.ComfyNode]] = [UpscaleModelLoader, ImageUpscaleWithModel]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
