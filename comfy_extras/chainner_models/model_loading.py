"""Edge: an upscale model from its tensors, as older custom nodes ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from comfy.compat.from_state_dict import as_file
from comfy.models.upscale import load_upscale_model


def load_state_dict(sd: Mapping[str, Tensor]) -> Any:
    """The UPSCALE_MODEL of these tensors; they are kept as a file in the temp folder. Raises as the loader of files does."""
    return load_upscale_model(str(as_file(sd)))
