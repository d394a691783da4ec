"""Where custom nodes import model detection from; each takes tensors by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from comfy.models.detect import Shapes, detect_family, unet_prefix

__all__ = ["count_blocks", "detect_unet_config", "model_config_from_unet", "unet_prefix_from_state_dict"]


def _shapes(state_dict: Mapping[str, Tensor], prefix: str = "") -> Shapes:
    return Shapes("state dict", {name: tuple(tensor.shape) for name, tensor in state_dict.items()}).under(prefix)


def unet_prefix_from_state_dict(state_dict: Mapping[str, Tensor]) -> str:
    """Where the diffusion model lies in an all-in-one file."""
    return unet_prefix(_shapes(state_dict))


def count_blocks(state_dict_keys: Sequence[str], prefix_string: str) -> int:
    """How many of `prefix_string` (with one {}) there are, counted up from 0 without a gap."""
    count = 0
    while any(name.startswith(prefix_string.format(count)) for name in state_dict_keys):
        count += 1
    return count


def detect_unet_config(state_dict: Mapping[str, Tensor], key_prefix: str, metadata: Any = None) -> dict[str, Any]:
    """The structure of the UNet under `key_prefix`. Raises ModelUnknown or WeightFileInvalid."""
    return asdict(detect_family(_shapes(state_dict, key_prefix))[1])


def model_config_from_unet(state_dict: Mapping[str, Tensor], unet_key_prefix: str, *args: Any, **kwargs: Any) -> Any:
    """The family of the UNet under `unet_key_prefix`. Raises ModelUnknown or WeightFileInvalid."""
    return detect_family(_shapes(state_dict, unet_key_prefix))[0]
