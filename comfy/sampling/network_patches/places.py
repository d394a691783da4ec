"""Where in the picture a layer's tokens lie, and numbers that differ from step to step but not from run to run."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from torch import Tensor

#: key of the step's number in the options of one network call
STEP = "number_of_step"
#: more halvings than any network has
DEEPEST = 8


def grid_of(tokens: int, options: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """(height, width, depth) of a layer with this many tokens: the latent's size halved `depth` times, rounded up."""
    height, width = options["original_shape"][-2:]
    for depth in range(DEEPEST):
        if height * width == tokens:
            return height, width, depth
        height, width = -(-height // 2), -(-width // 2)
    return None


def remember_step(emb: Tensor, model_channels: int, options: dict[str, Any]) -> Tensor:
    """An emb patch: keep the bits of the call's highest sigma under STEP, read from the device once a call."""
    if STEP not in options:
        sigmas = options.get("sigmas")
        highest = 0.0 if sigmas is None else float(sigmas.max())
        options[STEP] = struct.unpack("<I", struct.pack("<f", highest))[0]
    return emb


def seed_of(options: Mapping[str, Any]) -> str:
    """Names the step and the layer: the same in each run, another one in each step and layer."""
    block = options.get("block", ("", 0))
    return f"{options.get(STEP, 0)}/{block[0]}/{block[1]}/{options.get('block_index', 0)}"
