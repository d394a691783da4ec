"""Weights from an integer hash, so that tests of networks need no weight file (formula: goldens README, section E.2)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn


def hashed(shape: Iterable[int], salt: int) -> Tensor:
    """float32 values in -1..1 that depend on the place in the tensor and on `salt` only."""
    shape = tuple(shape)
    mask = np.uint64(0xFFFFFFFF)
    a = (np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64((salt * 0x9E3779B9) & 0xFFFFFFFF)) & mask
    a ^= a >> np.uint64(16)
    a = (a * np.uint64(0x7FEB352D)) & mask
    a ^= a >> np.uint64(15)
    a = (a * np.uint64(0x846CA68B)) & mask
    a ^= a >> np.uint64(16)
    return torch.from_numpy((a.astype(np.float64) / 2.0**31 - 1.0).astype(np.float32)).reshape(shape)


def hashed_parameter(name: str, shape: Iterable[int], salt: int) -> Tensor:
    """A parameter of the size that a trained network would have, by what its name says it is."""
    shape = tuple(shape)
    u = hashed(shape, salt)
    if name.endswith("bias"):
        return 0.1 * u
    if len(shape) == 1:
        return 1 + 0.2 * u
    if "relative_attention_bias" in name:
        return u
    if "token_embedding" in name or name.endswith("shared.weight"):
        return 0.6 * u
    if "position_embedding" in name:
        return 0.2 * u
    fan_in = int(np.prod(shape[1:])) if len(shape) == 4 else shape[-1]
    return np.float32(1.7 / np.sqrt(fan_in)) * u


def hash_state_dict(network: nn.Module, first_salt: int = 1) -> dict[str, Tensor]:
    """A hashed tensor for each parameter of `network`, salts counted up in the order of the names."""
    return {
        name: hashed_parameter(name, tensor.shape, first_salt + i) for i, (name, tensor) in enumerate(sorted(network.state_dict().items()))
    }
