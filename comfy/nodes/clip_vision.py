"""Nodes that let CLIP look at pictures."""

from __future__ import annotations

from typing import Any

import torch

from comfy import folders
from comfy.errors import InputUnusable
from comfy.nodes.v1 import required

FOLDER = "clip_vision"


class CLIPVisionLoader:
    """The picture side of CLIP from a file."""

    CATEGORY, FUNCTION, RETURN_TYPES = "loaders", "load_clip", ("CLIP_VISION",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(clip_name=(folders.current().filename_list(FOLDER),))

    def load_clip(self, clip_name: str) -> tuple[Any]:
        from comfy.models.clip_vision import load_clip_vision  # pulls in networks: not needed to list the nodes

        return (load_clip_vision(folders.current().full_path_or_raise(FOLDER, clip_name)),)


class CLIPVisionEncode:
    """What CLIP sees in a picture: in its middle square, or in all of it squeezed into one."""

    CATEGORY, FUNCTION, RETURN_TYPES = "conditioning", "encode", ("CLIP_VISION_OUTPUT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(clip_vision=("CLIP_VISION",), image=("IMAGE",), crop=(["center", "none"],))

    def encode(self, clip_vision: Any, image: torch.Tensor, crop: str) -> tuple[Any]:
        if clip_vision is None:
            raise InputUnusable("There is no CLIP vision model.", field="clip_vision")
        return (clip_vision.encode_image(image, crop=crop == "center"),)


NODE_CLASS_MAPPINGS = {"CLIPVisionLoader": CLIPVisionLoader, "CLIPVisionEncode": CLIPVisionEncode}
NODE_DISPLAY_NAME_MAPPINGS = {"CLIPVisionLoader": "Load CLIP Vision", "CLIPVisionEncode": "CLIP Vision Encode"}
