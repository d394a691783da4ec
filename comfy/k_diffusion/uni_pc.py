"""UniPC: a predictor and corrector of any order with one model call per step. Zhao et al. 2023, arXiv:2302.04867.

Works in the variance-preserving scaling: x / sqrt(1 + sigma^2), alpha = 1 / sqrt(1 + sigma^2), lam = -ln sigma.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from comfy.k_diffusion.common import Callback, Model, Options, Run, clock_of
from comfy.k_diffusion.multistep import weighted
from comfy.sampling.host import level

#: stands for a final 0, at which lam is infinite
LAST_SIGMA = 0.001


def alpha_of(sigma: float) -> float:
    """alpha of the variance-preserving scaling."""
    return 1 / math.sqrt(1 + sigma**2)


class UniPC:
    """The state of one run: estimates of earlier points, newest last."""

    def __init__(self, run: Run, sigmas: Sequence[float], variant: str) -> None:
        self.run, self.sigmas, self.variant = run, sigmas, variant
        self.known: list[Tensor] = []

    def predict_x0(self, x: Tensor, i: int) -> Tensor:
        """The model's estimate for the scaled state x at point i."""
        sigma = self.sigmas[i]
        return self.run.denoise(x / alpha_of(sigma), sigma)

    def predict(self, x: Tensor, i: int, order: int) -> Tensor:
        """The state at point i from the one at i - 1. Eq. 3 for data prediction."""
        base, slopes, rks, h, scale = self._expansion(x, i, order)
        if not slopes:
            return base
        matrix, right = _system([*rks, 1.0], -h, self._b(h))
        rhos = [0.5] if order == 2 else np.linalg.solve(matrix[:-1, :-1], right[:-1]).tolist()
        return base - weighted(slopes, rhos) * scale

    def correct(self, x: Tensor, i: int, order: int) -> tuple[Tensor, Tensor]:
        """(The state at point i, corrected with the estimate at the predicted state, that estimate). Eq. 9."""
        x0 = self.predict_x0(self.predict(x, i, order), i)
        base, slopes, rks, h, scale = self._expansion(x, i, order)
        matrix, right = _system([*rks, 1.0], -h, self._b(h))
        rhos = [0.5] if order == 1 else np.linalg.solve(matrix, right).tolist()
        return base - weighted([*slopes, x0 - self.known[-1]], rhos) * scale, x0

    def _b(self, h: float) -> float:
        return -h if self.variant == "bh1" else math.expm1(-h)

    def _expansion(self, x: Tensor, i: int, order: int) -> tuple[Tensor, list[Tensor], list[float], float, float]:
        """(first-order state, differences of estimates, their places in units of the step, the step in lam, alpha B(h))."""
        sigma, target = self.sigmas[i - 1], self.sigmas[i]
        h = math.log(sigma / target)
        newest = self.known[-1]
        rks = [math.log(sigma / self.sigmas[i - 1 - k]) / h for k in range(1, order)]
        slopes = [(self.known[-1 - k] - newest) / rk for k, rk in enumerate(rks, start=1)]
        base = x * (target * alpha_of(target) / (sigma * alpha_of(sigma))) - newest * (alpha_of(target) * math.expm1(-h))
        return base, slopes, rks, h, alpha_of(target) * self._b(h)


def _system(rks: Sequence[float], hh: float, b_h: float) -> tuple[np.ndarray, np.ndarray]:
    """The Vandermonde system of theorem 3.1."""
    phi = math.expm1(hh) / hh - 1
    factorial = 1
    rows, right = [], []
    for power in range(1, len(rks) + 1):
        rows.append([rk ** (power - 1) for rk in rks])
        right.append(phi * factorial / b_h)
        factorial *= power + 1
        phi = phi / hh - 1 / factorial
    return np.array(rows), np.array(right)


def sample_uni_pc(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    variant: str = "bh1",
) -> Tensor:
    """UniPC of order up to 3 with B(h) = -h; reports the scaled state after each step.

    A final 0 is replaced by 0.001, in a flow's final un-scaling too, as recorded.
    """
    run = Run(model, x, sigmas, extra_args, callback)
    points = list(run.sigmas)
    replaced = points[-1] == 0
    if replaced:
        points[-1] = LAST_SIGMA
    order = min(3, len(points) - 2)
    solver = UniPC(run, points, variant)
    x = x * alpha_of(points[0])
    for i in range(run.steps):
        if i == 0:
            solver.known = [solver.predict_x0(x, 0)]
        else:
            x, x0 = solver.correct(x, i, min(order, i, run.steps + 1 - i))
            solver.known = [*solver.known[1 - max(order, 2) :], x0]
        if i == run.steps - 1 and order > 0:
            x = solver.predict(x, run.steps, 1)
        if callback is not None:
            sigma = level(points[i], x)[0]
            callback({"i": i, "x": x, "sigma": sigma, "sigma_hat": sigma, "denoised": solver.known[-1]})
    x = x / alpha_of(points[-1])
    return x / (1 - LAST_SIGMA) if replaced and clock_of(model).flow else x


def sample_uni_pc_bh2(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
) -> Tensor:
    """UniPC with B(h) = e^-h - 1."""
    return sample_uni_pc(model, x, sigmas, extra_args, callback, disable, variant="bh2")
