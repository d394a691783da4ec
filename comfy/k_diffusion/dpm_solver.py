"""DPM-Solver of order 1 to 3 with a fixed budget or with adaptive steps. Lu et al. 2022, arXiv:2206.00927.

Time is t = -ln sigma; eps(x, t) = (x - x0) / sigma.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from comfy.errors import InputUnusable
from comfy.k_diffusion.common import Callback, Model, Options, Run, default_noise, get_ancestral_step
from comfy.sampling.host import level
from comfy.sampling.noise import NoiseSampler

#: a () float32 CPU tensor: the adaptive solver's choice of steps follows the rounding of its times
Time = Tensor


def sigma_at(t: Time) -> Time:
    """exp(-t)."""
    return t.neg().exp()


def _time(sigma: float) -> Time:
    return -torch.tensor(sigma, dtype=torch.float32).log()


class Steps:
    """The three single steps; each starts from `first`, the noise prediction at (x, t)."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def eps(self, x: Tensor, t: Time) -> Tensor:
        """The noise prediction at (x, t)."""
        sigma = float(sigma_at(t))
        return (x - self.run.denoise(x, sigma)) / sigma

    def one(self, x: Tensor, t: Time, t_next: Time, first: Tensor) -> Tensor:
        """Order 1."""
        return x - first * float(sigma_at(t_next) * (t_next - t).expm1())

    def two(self, x: Tensor, t: Time, t_next: Time, first: Tensor, r: float = 0.5) -> tuple[Tensor, Tensor]:
        """Order 2 over the point t + r h: (x at t_next, the prediction at that point)."""
        h = t_next - t
        second = self._inner(x, t, r * h, first)
        factor = sigma_at(t_next) * h.expm1()
        return x - first * float(factor) - (second - first) * float(sigma_at(t_next) / (2 * r) * h.expm1()), second

    def _inner(self, x: Tensor, t: Time, part: Time, first: Tensor) -> Tensor:
        return self.eps(x - first * float(sigma_at(t + part) * part.expm1()), t + part)

    def three(self, x: Tensor, t: Time, t_next: Time, first: Tensor, second: Tensor | None = None) -> Tensor:
        """Order 3 over the points t + h/3 and t + 2h/3; `second` is the prediction at the first of them, when known."""
        r_1, r_2 = 1 / 3, 2 / 3
        h = t_next - t
        if second is None:
            second = self._inner(x, t, r_1 * h, first)
        part = r_2 * h
        sigma = sigma_at(t + part)
        bend = sigma * (r_2 / r_1) * _phi(part)
        point = x - first * float(sigma * part.expm1()) - (second - first) * float(bend)
        third = self.eps(point, t + part)
        sigma_next = sigma_at(t_next)
        return x - first * float(sigma_next * h.expm1()) - (third - first) * float(sigma_next / r_2 * _phi(h))


def _phi(h: Time) -> Time:
    """expm1(h) / h - 1; 0 for a step of no length."""
    return h.expm1() / h - 1 if float(h) else torch.zeros_like(h)


def ends(run: Run) -> tuple[Time, Time]:
    """(t at the first sigma, t at the last sigma that is not 0)."""
    return _time(run.sigmas[0]), _time(run.sigmas[-1] or run.sigmas[-2])


def split(t: Time, t_next: Time, t_end: Time, eta: float) -> tuple[Time, float]:
    """(t of the lower sigma of an ancestral step, standard deviation of the noise that follows)."""
    if not eta:
        return t_next, 0.0
    down, _ = get_ancestral_step(sigma_at(t), sigma_at(t_next), eta)
    t_down = torch.minimum(t_end, -down.log())
    return t_down, float((sigma_at(t_next) ** 2 - sigma_at(t_down) ** 2).clamp(min=0).sqrt())


def sample_dpm_fast(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    eta: float = 0.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:
    """DPM-Solver-fast: third-order steps, equal in t, as many as the number of model calls allows."""
    run = Run(model, x, sigmas, extra_args, callback)
    if run.steps < 1:
        return x
    t_start, t_end = ends(run)
    noise = noise_sampler or default_noise(x, run.seed)
    steps = Steps(run)
    count = run.steps // 3 + 1
    orders = [3] * (count - 2) + [2, 1] if run.steps % 3 == 0 else [3] * (count - 1) + [run.steps % 3]
    times = torch.linspace(float(t_start), float(t_end), count + 1)
    for i, order in enumerate(orders):
        t, t_next = times[i], times[i + 1]
        t_down, up = split(t, t_next, t_end, eta)
        first = steps.eps(x, t)
        if callback is not None:
            sigma = level(float(sigma_at(t)), x)[0]
            callback({"x": x, "i": i, "t": t, "t_up": t, "sigma": sigma, "sigma_hat": sigma, "denoised": x - first * float(sigma_at(t))})
        if order == 1:
            x = steps.one(x, t, t_down, first)
        elif order == 2:
            x = steps.two(x, t, t_down, first)[0]
        else:
            x = steps.three(x, t, t_down, first)
        if up:
            x = x + noise(sigma_at(t), sigma_at(t_next)) * (s_noise * up)
    return x


class StepControl:
    """PID control of the step from the last three errors (contract B.3, dpm_adaptive)."""

    def __init__(self, h: float, pcoeff: float, icoeff: float, dcoeff: float, order: float, accept_safety: float) -> None:
        self.h = h
        self.powers = ((pcoeff + icoeff + dcoeff) / order, -(pcoeff + 2 * dcoeff) / order, dcoeff / order)
        self.accept_safety = accept_safety
        self.inverse_errors: list[float] = []

    def propose(self, error: float) -> bool:
        """Take the error of a step tried with `h`, set the next `h`, and say whether the step counts."""
        inverse = 1 / (error + 1e-8)
        if not self.inverse_errors:
            self.inverse_errors = [inverse] * 3
        self.inverse_errors[0] = inverse
        factor = math.prod(e**p for e, p in zip(self.inverse_errors, self.powers))
        factor = 1 + math.atan(factor - 1)
        accept = factor >= self.accept_safety
        if accept:
            self.inverse_errors = [inverse, *self.inverse_errors[:2]]
        self.h *= factor
        return accept


def sample_dpm_adaptive(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    order: int = 3,
    rtol: float = 0.05,
    atol: float = 0.0078,
    h_init: float = 0.05,
    pcoeff: float = 0.0,
    icoeff: float = 1.0,
    dcoeff: float = 0.0,
    accept_safety: float = 0.81,
    eta: float = 0.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    return_info: bool = False,
) -> Tensor:
    """DPM-Solver-23 (or 12): steps as long as two orders agree. Raises InputUnusable for another order than 2 or 3."""
    if order not in (2, 3):
        raise InputUnusable("The order must be 2 or 3.", order=order)
    run = Run(model, x, sigmas, extra_args, callback)
    if run.steps < 1:
        return x
    t, t_end = ends(run)
    noise = noise_sampler or default_noise(x, run.seed)
    steps = Steps(run)
    pid = StepControl(abs(h_init), pcoeff, icoeff, dcoeff, 1.5 if eta else order, accept_safety)
    before, tried = x, 0
    while bool(t < t_end - 1e-5):
        t_next = torch.minimum(t_end, t + pid.h)
        t_down, up = split(t, t_next, t_end, eta)
        first = steps.eps(x, t)
        low, high = pair(steps, order)(x, t, t_down, first)
        accept = pid.propose(disagreement(low, high, before, atol, rtol))
        if accept:
            before = low
            moved = high + noise(sigma_at(t), sigma_at(t_next)) * (s_noise * up) if up else high
            arrived = t_next
        else:
            moved, arrived = x, t
        if callback is not None:
            sigma = level(float(sigma_at(t)), x)[0]
            callback({"x": moved, "i": tried, "t": arrived, "sigma": sigma, "sigma_hat": sigma, "denoised": x - first * float(sigma_at(t))})
        x, t, tried = moved, arrived, tried + 1
    return x


def pair(steps: Steps, order: int) -> Callable[[Tensor, Time, Time, Tensor], tuple[Tensor, Tensor]]:
    """The step of `order` and the one below it, from the same predictions."""

    def low_and_high(x: Tensor, t: Time, t_next: Time, first: Tensor) -> tuple[Tensor, Tensor]:
        if order == 2:
            return steps.one(x, t, t_next, first), steps.two(x, t, t_next, first)[0]
        low, second = steps.two(x, t, t_next, first, r=1 / 3)
        return low, steps.three(x, t, t_next, first, second)

    return low_and_high


def disagreement(low: Tensor, high: Tensor, before: Tensor, atol: float, rtol: float) -> float:
    """The error norm. It decides the next step, so here the host waits for the device."""
    scale = torch.maximum(low.abs(), before.abs()).mul(rtol).clamp(min=atol)
    return float(torch.linalg.norm((low - high) / scale)) / math.sqrt(low.numel())
