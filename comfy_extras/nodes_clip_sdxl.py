"""Prompts for SDXL and its refiner, with the sizes that its vector conditioning reads. Podell et al. 2023, arXiv:2307.01952, 2.2."""

from __future__ import annotations

from typing import Any

from comfy.errors import InputUnusable
from comfy.nodes.conventions import MAX_RESOLUTION
from comfy.nodes.v3 import io


def _size(name: str, default: int = 1024) -> Any:
    return io.Int.Input(name, default=default, min=0, max=MAX_RESOLUTION)


def _encoder(clip: Any) -> Any:
    if clip is None:
        raise InputUnusable("The CLIP input is empty: the checkpoint holds no text encoder.", input="clip")
    return clip


class CLIPTextEncodeSDXLRefiner(io.ComfyNode):
    """A prompt for the refiner, with the score that it was trained on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLIPTextEncodeSDXLRefiner",
            category="advanced/conditioning",
            inputs=[
                io.Float.Input("ascore", default=6.0, min=0.0, max=1000.0, step=0.01),
                _size("width"),
                _size("height"),
                io.String.Input("text", multiline=True, dynamic_prompts=True),
                io.Clip.Input("clip"),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, clip: Any, ascore: float, width: int, height: int, text: str) -> io.NodeOutput:
        facts = {"aesthetic_score": ascore, "width": width, "height": height}
        return io.NodeOutput(_encoder(clip).encode_from_tokens_scheduled(clip.tokenize(text), add_dict=facts))


class CLIPTextEncodeSDXL(io.ComfyNode):
    """A prompt for each of SDXL's text encoders, with the picture's size, crop and target size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLIPTextEncodeSDXL",
            category="advanced/conditioning",
            inputs=[
                io.Clip.Input("clip"),
                _size("width"),
                _size("height"),
                _size("crop_w", 0),
                _size("crop_h", 0),
                _size("target_width"),
                _size("target_height"),
                io.String.Input("text_g", multiline=True, dynamic_prompts=True),
                io.String.Input("text_l", multiline=True, dynamic_prompts=True),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(
        cls,
        clip: Any,
        width: int,
        height: int,
        crop_w: int,
        crop_h: int,
        target_width: int,
        target_height: int,
        text_g: str,
        text_l: str,
    ) -> io.NodeOutput:
        tokens = _encoder(clip).tokenize(text_g)
        tokens["l"] = clip.tokenize(text_l).get("l", [])
        if "g" in tokens and tokens["l"]:
            empty = clip.tokenize("")
            longest = max(len(tokens["l"]), len(tokens["g"]))
            for key in ("l", "g"):
                tokens[key] = tokens[key] + [*empty[key]] * (longest - len(tokens[key]))
        facts = {
            "width": width,
            "height": height,
            "crop_w": crop_w,
            "crop_h": crop_h,
            "target_width": target_width,
            "target_height": target_height,
        }
        return io.NodeOutput(clip.encode_from_tokens_scheduled(tokens, add_dict=facts))


NODES: list[type[io.ComfyNode]] = [CLIPTextEncodeSDXLRefiner, CLIPTextEncodeSDXL]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
