"""DEIS: an exponential integrator with polynomial extrapolation in the time of a fixed schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from comfy.k_diffusion.common import Callback, Model, Options, Run
from comfy.k_diffusion.multistep import weighted


class VpMap:
    """The variance-preserving schedule that DEIS integrates over: fixed, whatever the model's own is (contract B.3)."""

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0, eps: float = 1e-3) -> None:
        low, high = math.log(sigma_min**2 + 1), math.log(sigma_max**2 + 1)
        self.beta_d = 2 * (low / eps - high) / (eps - 1)
        self.beta_min = high - 0.5 * self.beta_d

    def time(self, sigma: float) -> float:
        """The t at which the schedule is at sigma."""
        return (math.sqrt(self.beta_min**2 + 2 * self.beta_d * math.log(sigma**2 + 1)) - self.beta_min) / self.beta_d

    def weights(self, times: Sequence[float], start: float, end: float, points: int = 10000) -> list[float]:
        """tAB coefficients: a left Riemann sum of d sigma/dt times the Lagrange basis over `times`."""
        tau = np.linspace(start, end, points)
        alpha_bar = np.exp(-0.5 * self.beta_d * tau**2 - self.beta_min * tau)
        speed = 0.5 * (self.beta_d * tau + self.beta_min) / np.sqrt(alpha_bar * (1 - alpha_bar))
        result = []
        for j, mine in enumerate(times):
            basis = np.ones_like(tau)
            for k, other in enumerate(times):
                if k != j:
                    basis = basis * (tau - other) / (mine - other)
            result.append(float((speed * basis).sum() * (end - start) / points))
        return result


def sample_deis(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    max_order: int = 3,
    deis_mode: str = "tab",
) -> Tensor:
    """Exponential integrator with tAB extrapolation; first and last step Euler. Zhang and Chen 2022, arXiv:2204.13902."""
    run = Run(model, x, sigmas, extra_args, callback)
    vp = VpMap()
    times = [vp.time(sigma) for sigma in run.sigmas]
    slopes: list[Tensor] = []
    for i, sigma, sigma_next in run.pairs():
        x0 = run.denoise(x, sigma)
        run.report(i, x, x0)
        slopes = [(x - x0) / sigma, *slopes[: max_order - 1]]
        if len(slopes) == 1 or sigma_next == 0:
            x = x + slopes[0] * (sigma_next - sigma)
        else:
            known = [times[i - k] for k in range(len(slopes))]
            x = x + weighted(slopes, vp.weights(known, times[i], times[i + 1]))
    return x
