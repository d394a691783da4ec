"""Edge: CLIP's picture side under the names that custom nodes import (contract: custom-nodes.md section 6)."""

from __future__ import annotations

import os

from comfy.models.clip_vision import ClipVisionModel, Output, clip_preprocess, load_clip_vision

__all__ = ["ClipVisionModel", "Output", "clip_preprocess", "load"]


def load(ckpt_path: str | os.PathLike[str]) -> ClipVisionModel:
    """The picture side of a CLIP file. Raises WeightFileMissing, WeightFileInvalid or ModelUnknown."""
    return load_clip_vision(ckpt_path)
