"""Small tools on state dicts and on attributes by dotted name, as custom nodes know them from comfy.utils."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch


def get_attr(obj: Any, attr: str) -> Any:
    """`obj.a.b` for "a.b"; raises AttributeError."""
    for name in attr.split("."):
        obj = getattr(obj, name)
    return obj


def set_attr(obj: Any, attr: str, value: Any) -> Any:
    """Assign `obj.a.b = value` for "a.b"; returns what was there."""
    *path, last = attr.split(".")
    owner = get_attr(obj, ".".join(path)) if path else obj
    previous = getattr(owner, last)
    setattr(owner, last, value)
    return previous


def set_attr_param(obj: Any, attr: str, value: torch.Tensor) -> Any:
    """`set_attr` with the tensor as a parameter that is not trained."""
    return set_attr(obj, attr, torch.nn.Parameter(value, requires_grad=False))


def copy_to_param(obj: Any, attr: str, value: torch.Tensor) -> None:
    """Copy into the parameter's own memory."""
    get_attr(obj, attr).data.copy_(value)


def state_dict_key_replace(state_dict: dict[str, Any], keys_to_replace: Mapping[str, str]) -> dict[str, Any]:
    """Rename keys in place; absent ones are left out. Returns the dict given."""
    for old, new in keys_to_replace.items():
        if old in state_dict:
            state_dict[new] = state_dict.pop(old)
    return state_dict


def state_dict_prefix_replace(state_dict: dict[str, Any], replace_prefix: Mapping[str, str], filter_keys: bool = False) -> dict[str, Any]:
    """Rename prefixes in place and return the dict; with `filter_keys`, a new dict of only the renamed keys."""
    result: dict[str, Any] = {} if filter_keys else state_dict
    for old, new in replace_prefix.items():
        for key in [key for key in state_dict if key.startswith(old)]:
            result[new + key[len(old) :]] = state_dict.pop(key)
    return result


def _under(state_dict: Mapping[str, Any], prefix: str) -> list[torch.Tensor]:
    return [value for key, value in state_dict.items() if key.startswith(prefix) and isinstance(value, torch.Tensor)]


def calculate_parameters(sd: Mapping[str, Any], prefix: str = "") -> int:
    """How many numbers the tensors under `prefix` hold."""
    return sum(tensor.nelement() for tensor in _under(sd, prefix))


def weight_dtype(sd: Mapping[str, Any], prefix: str = "") -> torch.dtype | None:
    """The floating dtype of most numbers under `prefix`; None without any."""
    counts: Counter[torch.dtype] = Counter()
    for tensor in _under(sd, prefix):
        if tensor.is_floating_point():
            counts[tensor.dtype] += tensor.numel()
    return counts.most_common(1)[0][0] if counts else None


def convert_sd_to(state_dict: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Every tensor in `dtype`, in place; returns the dict given."""
    for key in list(state_dict):
        state_dict[key] = state_dict[key].to(dtype)
    return state_dict
