"""The nine schedulers: from a sampling type's sigma table to the list that a sampler walks down.

Pure functions of the table (contract: goldens README A.2). Each returns a float32 CPU tensor, descending, that ends in
0; its length is steps + 1 except where noted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from comfy.errors import InputUnusable, PackageMissing
from comfy.replaceable import replaceable
from comfy.sampling import curves


def simple(table: Any, steps: int) -> Tensor:
    """Entries of the table at even distances from its end."""
    sigmas = table.sigmas
    stride = len(sigmas) / steps
    picked = [float(sigmas[-(1 + int(i * stride))]) for i in range(steps)]
    return torch.tensor([*picked, 0.0], dtype=torch.float32)


def ddim_uniform(table: Any, steps: int) -> Tensor:
    """Every k-th entry from index 1 on, k = len // steps. Song et al. 2020, arXiv:2010.02502.

    May hold more than steps + 1 values, and never the greatest sigma.
    """
    sigmas = table.sigmas
    ends_in_zero = math.isclose(float(sigmas[1]), 0.0, abs_tol=1e-5)
    stride = max(len(sigmas) // (steps + 1 if ends_in_zero else steps), 1)
    picked = sigmas[1::stride].flip(0).tolist()
    return torch.tensor(picked if ends_in_zero else [*picked, 0.0], dtype=torch.float32)


def normal(table: Any, steps: int, sgm: bool = False) -> Tensor:
    """Sigmas at evenly spaced timesteps; `sgm` leaves out the last one (trailing spacing, arXiv:2305.08891)."""
    start, end = float(table.timestep(table.sigma_max)), float(table.timestep(table.sigma_min))
    append_zero = True
    if sgm:
        timesteps = torch.linspace(start, end, steps + 1)[:-1]
    else:
        if math.isclose(float(table.sigma(torch.tensor(end))), 0.0, abs_tol=1e-5):
            steps, append_zero = steps + 1, False
        timesteps = torch.linspace(start, end, steps)
    sigmas = table.sigma(timesteps).float()
    return torch.cat([sigmas, sigmas.new_zeros(1)]) if append_zero else sigmas


def beta(table: Any, steps: int, alpha: float = 0.6, beta: float = 0.6) -> Tensor:
    """Entries at the quantiles of a Beta distribution. Lee et al. 2024, arXiv:2407.12173. Repeats are left out.

    Raises PackageMissing without scipy.
    """
    try:
        from scipy.stats import beta as distribution  # imports slowly, and only this scheduler needs it
    except ImportError as error:
        raise PackageMissing(package="scipy", needed_for="the scheduler beta") from error

    last = len(table.sigmas) - 1
    quantiles = distribution.ppf([1 - i / steps for i in range(steps)], alpha, beta)
    picked: list[int] = []
    for quantile in quantiles:
        index = round(float(quantile) * last)
        if not picked or index != picked[-1]:
            picked.append(index)
    return torch.tensor([*(float(table.sigmas[i]) for i in picked), 0.0], dtype=torch.float32)


def linear_quadratic(table: Any, steps: int, threshold: float = 0.025, linear_steps: int | None = None) -> Tensor:
    """Linear to `threshold`, then the parabola that joins value and slope. Movie Gen, arXiv:2410.13720, section 3.1.4."""
    if steps == 1:
        values = [1.0, 0.0]
    else:
        m = steps // 2 if linear_steps is None else linear_steps
        q = steps - m
        delta = m - threshold * steps
        a = delta / (m * q**2)
        b = threshold / m - 2 * delta / q**2
        c = a * m**2
        done = [i * threshold / m for i in range(m)] + [a * i**2 + b * i + c for i in range(m, steps)] + [1.0]
        values = [1.0 - value for value in done]
    return torch.tensor(values, dtype=torch.float32) * float(table.sigma_max)


def kl_optimal(steps: int, sigma_min: float, sigma_max: float) -> Tensor:
    """Even steps of the angle atan(sigma). Sabour et al. 2024, arXiv:2404.14507, theorem 3.1. One step gives [nan, 0]."""
    part = torch.arange(steps, dtype=torch.float32) / (steps - 1)
    sigmas = (part * math.atan(sigma_min) + (1 - part) * math.atan(sigma_max)).tan()
    return torch.cat([sigmas, sigmas.new_zeros(1)])


class SchedulerHandler(NamedTuple):
    """A scheduler by name: handler(table, steps) or, without `use_ms`, handler(n=, sigma_min=, sigma_max=)."""

    handler: Callable[..., Tensor]
    use_ms: bool = True


def _sgm_uniform(table: Any, steps: int) -> Tensor:
    return normal(table, steps, sgm=True)


def _karras(n: int, sigma_min: float, sigma_max: float) -> Tensor:
    return curves.karras(n, sigma_min, sigma_max)


def _exponential(n: int, sigma_min: float, sigma_max: float) -> Tensor:
    return curves.exponential(n, sigma_min, sigma_max)


def _kl_optimal(n: int, sigma_min: float, sigma_max: float) -> Tensor:
    return kl_optimal(n, sigma_min, sigma_max)


#: packs add their own
SCHEDULER_HANDLERS: dict[str, SchedulerHandler] = {
    "simple": SchedulerHandler(simple),
    "sgm_uniform": SchedulerHandler(_sgm_uniform),
    "karras": SchedulerHandler(_karras, use_ms=False),
    "exponential": SchedulerHandler(_exponential, use_ms=False),
    "ddim_uniform": SchedulerHandler(ddim_uniform),
    "beta": SchedulerHandler(beta),
    "normal": SchedulerHandler(normal),
    "linear_quadratic": SchedulerHandler(linear_quadratic),
    "kl_optimal": SchedulerHandler(_kl_optimal, use_ms=False),
}
SCHEDULER_NAMES: list[str] = list(SCHEDULER_HANDLERS)


@replaceable("comfy.samplers.calculate_sigmas")
def calculate_sigmas(model_sampling: Any, scheduler_name: str, steps: int) -> Tensor:
    """The list of `scheduler_name` for `steps` steps.

    Raises InputUnusable for a scheduler that does not exist, or fewer than one step.
    """
    handler = SCHEDULER_HANDLERS.get(scheduler_name)
    if handler is None:
        raise InputUnusable("There is no such scheduler.", scheduler=scheduler_name, known=list(SCHEDULER_HANDLERS))
    if steps < 1:
        raise InputUnusable("A schedule needs at least one step.", steps=steps)
    if handler.use_ms:
        return handler.handler(model_sampling, steps)
    return handler.handler(n=steps, sigma_min=float(model_sampling.sigma_min), sigma_max=float(model_sampling.sigma_max))


def partial_sigmas(model_sampling: Any, scheduler_name: str, steps: int, denoise: float) -> Tensor:
    """The last `steps` steps of a schedule of steps / denoise steps, as BasicScheduler cuts it; (0,) for denoise 0."""
    if denoise <= 0.0:
        return torch.zeros(0)
    total = int(steps / denoise) if denoise < 1.0 else steps
    sigmas: Tensor = calculate_sigmas(model_sampling, scheduler_name, total)
    return sigmas.cpu()[-(steps + 1) :]
