"""Schedules that need no model, and operations on lists of sigmas (contract: goldens README A.3).

Sigma lists are (n,) float32 CPU tensors, descending.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor


def append_zero(sigmas: Tensor) -> Tensor:
    """(n,) -> (n + 1,) ending in 0."""
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def karras(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0, device: Any = "cpu") -> Tensor:
    """Even steps of sigma^(1 / rho). Karras et al. 2022, arXiv:2206.00364, eq. 5."""
    ramp = torch.linspace(0, 1, n, device=device)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return append_zero((high + ramp * (low - high)) ** rho)


def exponential(n: int, sigma_min: float, sigma_max: float, device: Any = "cpu") -> Tensor:
    """Even steps of ln sigma."""
    return append_zero(torch.linspace(math.log(sigma_max), math.log(sigma_min), n, device=device).exp())


def polyexponential(n: int, sigma_min: float, sigma_max: float, rho: float = 1.0, device: Any = "cpu") -> Tensor:
    """Steps of ln sigma that follow r^rho."""
    ramp = torch.linspace(1, 0, n, device=device) ** rho
    return append_zero((ramp * (math.log(sigma_max) - math.log(sigma_min)) + math.log(sigma_min)).exp())


def variance_preserving(n: int, beta_d: float = 19.9, beta_min: float = 0.1, eps_s: float = 1e-3, device: Any = "cpu") -> Tensor:
    """The continuous VP schedule. Song et al. 2021, arXiv:2011.13456."""
    t = torch.linspace(1, eps_s, n, device=device)
    return append_zero((beta_d * t**2 / 2 + beta_min * t).expm1().sqrt())


def laplace(n: int, sigma_min: float, sigma_max: float, mu: float = 0.0, beta: float = 0.5, device: Any = "cpu") -> Tensor:
    """Quantiles of a Laplace distribution of log-SNR. Hang et al. 2024, arXiv:2407.03297. No zero at the end: (n,)."""
    middle = 0.5 - torch.linspace(0, 1, n, device=device)
    return (mu - beta * middle.sign() * (1 - 2 * middle.abs() + 1e-5).log()).exp().clamp(sigma_min, sigma_max)


def turbo(model_sampling: Any, steps: int, denoise: float) -> Tensor:
    """Sigmas of timesteps 999, 899, ..., 99, from the one that `denoise` names. Sauer et al. 2023, arXiv:2311.17042."""
    start = 10 - int(10 * denoise)
    timesteps = torch.arange(999, 0, -100)[start : start + steps]
    return append_zero(model_sampling.sigma(timesteps).float())


def log_linear(values: list[float], length: int) -> list[float]:
    """`values`, descending and positive, resampled to `length` evenly in index and linearly in ln."""
    logs = [math.log(value) for value in reversed(values)]
    result = []
    for k in range(length):
        place = k * (len(logs) - 1) / (length - 1) if length > 1 else 0.0
        left = min(int(place), len(logs) - 2)
        part = place - left
        result.append(math.exp(logs[left] * (1 - part) + logs[left + 1] * part))
    return result[::-1]


def from_table(values: list[float], steps: int, denoise: float, resample: bool) -> Tensor:
    """A published list of sigmas for `steps` steps: resampled, the last round(steps x denoise) kept, the end set to 0.

    (0,) when denoise keeps nothing.
    """
    kept = steps
    if denoise < 1.0:
        if denoise <= 0.0:
            return torch.zeros(0)
        kept = round(steps * denoise)
    sigmas = log_linear(values, steps + 1) if resample else list(values)
    tail = sigmas[-(kept + 1) :]
    tail[-1] = 0.0
    return torch.tensor(tail, dtype=torch.float32)


def split(sigmas: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """The part down to `step` and the part from it on; both hold the sigma at `step`."""
    return sigmas[: step + 1], sigmas[step:]


def split_denoise(sigmas: Tensor, denoise: float) -> tuple[Tensor, Tensor]:
    """The part before and the part of the last round(steps x denoise) steps; denoise 0 leaves the first one empty."""
    steps = max(sigmas.shape[-1] - 1, 0)
    kept = round(steps * denoise)
    return sigmas[:-kept] if kept else sigmas[:0], sigmas[-(kept + 1) :]


def flip(sigmas: Tensor) -> Tensor:
    """Reversed, for un-sampling; a 0 at the front becomes 1e-4."""
    if len(sigmas) == 0:
        return sigmas
    turned = sigmas.flip(0)
    if float(turned[0]) == 0:
        turned[0] = 0.0001
    return turned


def set_first(sigmas: Tensor, sigma: float) -> Tensor:
    """A copy whose first value is `sigma`."""
    changed = sigmas.clone()
    if len(changed):
        changed[0] = sigma
    return changed


def extend(sigmas: Tensor, steps: int, start: float, end: float, spacing: str) -> Tensor:
    """`steps` - 1 points put into every interval whose upper sigma lies in [end, start]; start < 0 means no limit."""
    upper = float("inf") if start < 0 else start
    parts = [k / steps for k in range(1, steps)]
    if spacing == "sine":
        parts = [1 - math.cos(u * math.pi / 2) for u in parts]
    elif spacing == "cosine":
        parts = [math.sin(u * math.pi / 2) for u in parts]
    values = sigmas.tolist()
    extended: list[float] = []
    for current, following in pairwise(values):
        extended.append(current)
        if end <= current <= upper:
            extended.extend(current + (following - current) * u for u in parts)
    return torch.tensor([*extended, *values[-1:]], dtype=torch.float32)
