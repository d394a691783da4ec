"""Sigmas that are known on the host and on the device, so that asking for the number never waits for the GPU."""

from __future__ import annotations

import struct
from typing import Any

import torch
from torch import Tensor


def round32(number: float) -> float:
    """`number` rounded to float32, the precision in which sigmas are compared."""
    try:
        return float(struct.unpack("f", struct.pack("f", number))[0])
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")


def level(sigma: float, x: Tensor) -> Tensor:
    """(b,) float32 on x's device, filled with `sigma`; `host_value` of it costs nothing."""
    sigma_b = torch.full((x.shape[0],), sigma, dtype=torch.float32, device=x.device)
    sigma_b.comfy_host_value = round32(sigma)  # type: ignore[attr-defined]
    return sigma_b


def host_value(sigma: Any) -> float:
    """The first value of `sigma` (a number, () or (b,)) as a float; waits for the device unless `level` made it."""
    known = getattr(sigma, "comfy_host_value", None)
    if known is not None:
        return float(known)
    return float(sigma.reshape(-1)[0]) if isinstance(sigma, Tensor) else float(sigma)


def host_list(sigmas: Tensor) -> list[float]:
    """A list of sigmas as floats, read once before the loop."""
    return [float(value) for value in sigmas.detach().cpu().tolist()]
