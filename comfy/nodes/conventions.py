"""What many nodes share: limits, choices, and how a conditioning or a latent is changed without touching the original."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from comfy.errors import InputUnusable

#: largest side of a picture that nodes offer, in pixels
MAX_RESOLUTION = 16384

#: in the order of the contract: the first is what a new node shows
IMAGE_UPSCALE_METHODS = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]
LATENT_UPSCALE_METHODS = ["nearest-exact", "bilinear", "area", "bicubic", "bislerp"]
CROP_METHODS = ["disabled", "center"]
ROTATIONS = ["none", "90 degrees", "180 degrees", "270 degrees"]
FLIPS = ["x-axis: vertically", "y-axis: horizontally"]

Latent = dict[str, Any]
Conditioning = list[list[Any]]


def quarters_of(rotation: str) -> int:
    """ "90 degrees" -> 1; "none" -> 0."""
    return {name: quarters for quarters, name in enumerate(ROTATIONS)}.get(rotation, 0)


def with_samples(latent: Mapping[str, Any], samples: torch.Tensor) -> Latent:
    """A copy of the latent with other samples: what other nodes hold is never changed."""
    changed = dict(latent)
    changed["samples"] = samples
    return changed


def conditioning_set_values(
    conditioning: Sequence[Sequence[Any]], values: Mapping[str, Any] | None = None, append: bool = False
) -> Conditioning:
    """The conditioning with `values` in each entry's options; with `append`, lists are extended instead of replaced.

    New lists and dicts: the given conditioning stays as it is (contract: custom-nodes.md section 6, node_helpers).
    """
    changed: Conditioning = []
    for entry in conditioning:
        options = dict(entry[1])
        for key, value in (values or {}).items():
            old = options.get(key) if append else None
            options[key] = value if old is None else old + value
        changed.append([entry[0], options])
    return changed


def image_alpha_fix(destination: torch.Tensor, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(destination, source) with the destination's channels: the source's extra ones are cut, a missing alpha is opaque."""
    have, need = source.shape[-1], destination.shape[-1]
    if have > need:
        source = source[..., :need]
    elif have < need:
        source = torch.nn.functional.pad(source, (0, need - have), mode="constant", value=1.0)
    return destination, source


def require_channels(image: torch.Tensor, least: int) -> None:
    """Raise InputUnusable when a picture (b, h, w, c) has too few channels."""
    if image.ndim != 4 or image.shape[-1] < least:
        raise InputUnusable("The picture has too few channels.", shape=list(image.shape), channels_needed=least)
