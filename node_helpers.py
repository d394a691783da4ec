"""Helpers of the ecosystem at the path where custom nodes import them; bodies forward (contract: custom-nodes.md section 6)."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image, ImageFile, UnidentifiedImageError

from comfy.nodes.conventions import conditioning_set_values, image_alpha_fix

__all__ = ["conditioning_set_values", "hasher", "image_alpha_fix", "pillow", "string_to_torch_dtype"]

_truncated_lock = threading.Lock()


def pillow(fn: Callable[[Any], Image.Image], arg: Any) -> Image.Image:
    """`fn(arg)`, tried once more with truncated pictures allowed when Pillow refuses.

    Pillow's switch is process-wide: it is on for the second try alone, one thread at a time.
    """
    try:
        return fn(arg)
    except (OSError, UnidentifiedImageError, ValueError):
        with _truncated_lock:
            before = ImageFile.LOAD_TRUNCATED_IMAGES
            ImageFile.LOAD_TRUNCATED_IMAGES = True
            try:
                return fn(arg)
            finally:
                ImageFile.LOAD_TRUNCATED_IMAGES = before


def hasher() -> Callable[..., Any]:
    """The hash that `--default-hashing-function` names, for telling files apart."""
    from comfy.cli_args import args

    return getattr(hashlib, str(args.default_hashing_function))


def string_to_torch_dtype(string: str) -> torch.dtype | None:
    """ "fp32", "fp16" or "bf16" as a torch dtype; None for anything else."""
    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}.get(string)
