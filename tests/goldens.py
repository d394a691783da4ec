"""The recorded numbers that implementations are compared with: `tests/data/goldens`, or the folder in GOLDENS_DIR."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

FOLDER = Path(os.environ.get("GOLDENS_DIR") or Path(__file__).parent / "data" / "goldens")


@functools.cache
def tensors(name: str) -> dict[str, torch.Tensor]:
    """Every tensor of `<name>.safetensors`."""
    return load_file(FOLDER / f"{name}.safetensors")


@functools.cache
def facts(name: str) -> Any:
    """`<name>.json`, with the strings nan, inf and -inf as floats."""
    return _numbers(json.loads((FOLDER / f"{name}.json").read_text()))


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return float(value) if value in ("nan", "inf", "-inf") else value


def assert_close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float, *, relative: bool = False, what: str = "") -> None:
    """Equal shapes, and no element further off than `tolerance` (times its magnitude when relative); nan equals nan."""
    assert tuple(actual.shape) == tuple(expected.shape), f"{what}: shape {tuple(actual.shape)}, recorded {tuple(expected.shape)}"
    torch.testing.assert_close(
        actual.double(),
        expected.double(),
        rtol=tolerance if relative else 0.0,
        atol=1e-30 if relative else tolerance,
        equal_nan=True,
        msg=lambda text: f"{what}: {text}",
    )
