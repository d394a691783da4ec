"""The benchmark of true shapes: its layouts are those of released files, and its small form runs."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from benchmarks import full_shapes
from comfy.models.detect import Shapes, detect_family, unet_prefix


def test_the_sdxl_layout_is_the_released_one() -> None:
    shapes = full_shapes.sdxl_layout()
    names = Shapes("sdxl", shapes)
    family, config = detect_family(names.under(unet_prefix(names)))
    assert (family.name, config) == ("SDXL", full_shapes.SDXL_UNET)
    assert shapes["conditioner.embedders.1.model.transformer.resblocks.31.attn.in_proj_weight"] == (3840, 1280)
    assert shapes["conditioner.embedders.1.model.text_projection"] == (1280, 1280)
    assert round(sum(math.prod(shape) for shape in shapes.values()) / 1e9, 2) == 3.47  # SDXL base: 3.5 billion parameters, 6.9 GB


def test_the_small_form_runs(tmp_path: Path) -> None:
    figures = full_shapes.measure("small", torch.device("cpu"), 64, tmp_path)
    assert figures["finite"]
    assert figures["shape"] == [1, 64, 64, 3]
    assert figures["peak_bytes"] >= figures["slab_bytes"] > figures["file_bytes"]  # float32 from a 16-bit file
