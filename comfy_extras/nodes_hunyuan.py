"""Nodes of the Hunyuan video and image families (goldens README, section F: 16 channels, 4 x 8 x 8; 64 channels, 32 x 32)."""

from __future__ import annotations

from typing import Any

import torch

from comfy.nodes.conventions import MAX_RESOLUTION, Latent
from comfy.pixels import latents

BATCH = ("INT", {"default": 1, "min": 1, "max": 4096})


class EmptyHunyuanLatentVideo:
    """Zeros for a text-to-video run."""

    CATEGORY, FUNCTION, RETURN_TYPES = "latent/video", "generate", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "width": ("INT", {"default": 848, "min": 16, "max": MAX_RESOLUTION, "step": 16}),
                "height": ("INT", {"default": 480, "min": 16, "max": MAX_RESOLUTION, "step": 16}),
                "length": ("INT", {"default": 25, "min": 1, "max": MAX_RESOLUTION, "step": 4}),
                "batch_size": BATCH,
            }
        }

    def generate(self, width: int, height: int, length: int, batch_size: int = 1) -> tuple[Latent]:
        return ({"samples": latents.empty_video(width, height, length, batch_size, 16, (4, 8, 8))},)


class EmptyHunyuanImageLatent:
    """Zeros for a text-to-image run."""

    CATEGORY, FUNCTION, RETURN_TYPES = "latent", "generate", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        side = {"default": 2048, "min": 64, "max": MAX_RESOLUTION, "step": 32}
        return {"required": {"width": ("INT", side), "height": ("INT", side), "batch_size": BATCH}}

    def generate(self, width: int, height: int, batch_size: int = 1) -> tuple[Latent]:
        return ({"samples": torch.zeros((batch_size, 64, height // 32, width // 32), device="cpu")},)


NODE_CLASS_MAPPINGS = {"EmptyHunyuanLatentVideo": EmptyHunyuanLatentVideo, "EmptyHunyuanImageLatent": EmptyHunyuanImageLatent}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}
