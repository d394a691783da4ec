"""Mixing two models of one family with a ratio for each block. A class for each family whose models this server loads."""

from __future__ import annotations

from typing import Any

from comfy_extras.nodes_model_merging import RATIO, ModelMergeBlocks


def _inputs(*blocks: str) -> dict[str, Any]:
    return {"required": {"model1": ("MODEL",), "model2": ("MODEL",), **dict.fromkeys(blocks, RATIO)}}


def _unet_blocks(count: int, end: str) -> list[str]:
    """The names of a UNet's parts: `count` blocks down and up; `end` follows the number of those."""
    return [
        "time_embed.",
        "label_emb.",
        *(f"input_blocks.{i}{end}" for i in range(count)),
        *(f"middle_block.{i}{end}" for i in range(3)),
        *(f"output_blocks.{i}{end}" for i in range(count)),
        "out.",
    ]


class ModelMergeSD1(ModelMergeBlocks):
    """SD1: 12 blocks each way."""

    CATEGORY = "advanced/model_merging/model_specific"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return _inputs(*_unet_blocks(12, "."))


class ModelMergeSD2(ModelMergeSD1):
    """SD2 has SD1's blocks."""


class ModelMergeSDXL(ModelMergeBlocks):
    """SDXL: 9 blocks each way."""

    CATEGORY = "advanced/model_merging/model_specific"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return _inputs(*_unet_blocks(9, ""))


NODE_CLASS_MAPPINGS = {"ModelMergeSD1": ModelMergeSD1, "ModelMergeSD2": ModelMergeSD2, "ModelMergeSDXL": ModelMergeSDXL}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}
