"""The nodes of comfy_extras.nodes_images that write files: animations and vector graphics (contract: files.md 2 and 3)."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any

import numpy as np
import torch

from comfy.errors import InputUnusable
from comfy.images_io import apng_bytes, webp_bytes
from comfy.nodes.results import pixels_of, save_files, texts_for

HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
FPS = ("FLOAT", {"default": 6.0, "min": 0.01, "max": 1000.0, "step": 0.01})
#: effort of the WebP encoder, 0 to 6
METHODS = {"default": 4, "fastest": 0, "slowest": 6}

Ui = dict[str, dict[str, Any]]


class SaveAnimatedWEBP:
    """A batch as one WebP."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "image/animation", "save_images", (), True
    methods = METHODS

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "images": ("IMAGE",),
                "filename_prefix": ("STRING", {"default": "ComfyUI"}),
                "fps": FPS,
                "lossless": ("BOOLEAN", {"default": True}),
                "quality": ("INT", {"default": 80, "min": 0, "max": 100}),
                "method": (list(cls.methods),),
            },
            "hidden": HIDDEN,
        }

    def save_images(
        self,
        images: torch.Tensor,
        fps: float,
        filename_prefix: str,
        lossless: bool,
        quality: int,
        method: str,
        num_frames: int = 0,
        prompt: Any = None,
        extra_pnginfo: Any = None,
    ) -> Ui:
        frames = pixels_of(images)
        size = num_frames if num_frames > 0 else len(frames)
        texts = texts_for(prompt, extra_pnginfo)
        effort = self.methods.get(method, METHODS["default"])
        files = [
            partial(webp_bytes, frames[i : i + size], texts, fps=fps, lossless=lossless, quality=quality, method=effort)
            for i in range(0, len(frames), size)
        ]
        height, width = frames[0].shape[:2]
        results = save_files(files, filename_prefix, ".webp", "output", width, height)
        return {"ui": {"images": results, "animated": (size != 1,)}}


class SaveAnimatedPNG:
    """A batch as one animated PNG."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "image/animation", "save_images", (), True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "images": ("IMAGE",),
                "filename_prefix": ("STRING", {"default": "ComfyUI"}),
                "fps": FPS,
                "compress_level": ("INT", {"default": 4, "min": 0, "max": 9}),
            },
            "hidden": HIDDEN,
        }

    def save_images(
        self,
        images: torch.Tensor,
        fps: float,
        compress_level: int,
        filename_prefix: str = "ComfyUI",
        prompt: Any = None,
        extra_pnginfo: Any = None,
    ) -> Ui:
        frames = np.stack(pixels_of(images))
        file = partial(apng_bytes, frames, texts_for(prompt, extra_pnginfo), level=compress_level, fps=fps)
        height, width = frames.shape[1:3]
        return {"ui": {"images": save_files([file], filename_prefix, ".png", "output", width, height), "animated": (True,)}}


_SVG_START = re.compile(r"<svg\b[^>]*>", re.IGNORECASE)


def svg_with_metadata(svg: bytes, texts: dict[str, str]) -> bytes:
    """The drawing with one JSON object in a `<metadata>` element right after its opening tag; unchanged without texts.

    Raises InputUnusable when there is no such tag.
    """
    if not texts:
        return svg
    try:
        text = svg.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputUnusable("The drawing is no UTF-8 text.") from error
    start = _SVG_START.search(text)
    if start is None or start[0].endswith("/>"):
        raise InputUnusable("The drawing has no opening <svg> tag.")
    body = json.dumps({key: json.loads(value) for key, value in texts.items()}, indent=2).replace("]]>", "]]]]><![CDATA[>")
    return f"{text[: start.end()]}\n<metadata><![CDATA[\n{body}\n]]></metadata>{text[start.end() :]}".encode()


class SaveSVGNode:
    """Vector graphics as files."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "image/save", "save_svg", (), True
    DESCRIPTION = "Saves SVG drawings in the output folder."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        tooltip = "Start of the file names. Folders and variables such as %date:yyyy-MM-dd% may be used."
        return {
            "required": {"svg": ("SVG",), "filename_prefix": ("STRING", {"default": "svg/ComfyUI", "tooltip": tooltip})},
            "hidden": HIDDEN,
        }

    def save_svg(self, svg: Any, filename_prefix: str = "svg/ComfyUI", prompt: Any = None, extra_pnginfo: Any = None) -> Ui:
        texts = texts_for(prompt, extra_pnginfo)
        files = [partial(svg_with_metadata, one.getvalue(), texts) for one in svg.data]
        return {"ui": {"images": save_files(files, filename_prefix, ".svg")}}
