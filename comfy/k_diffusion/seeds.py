"""Exponential SDE solvers with two and three stages: ER-SDE and SEEDS, in the half log-SNR."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from comfy.k_diffusion.common import Callback, Model, Options, Run, clock_of, default_noise
from comfy.k_diffusion.sde import begin
from comfy.sampling.noise import NoiseSampler

#: L -> psi(L), on a float tensor
NoiseScaler = Callable[[Tensor], Tensor]
POINTS = 200


def default_noise_scaler(level: Tensor) -> Tensor:
    """psi(L) = L (e^(L^0.3) + 10), the paper's ER-SDE 5."""
    return level * ((level**0.3).exp() + 10.0)


def sample_er_sde(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    noise_scaler: NoiseScaler | None = None,
    max_stage: int = 3,
) -> Tensor:
    """Extended reverse-time SDE over L = sigma / alpha. Cui et al. 2023, arXiv:2309.06169, Alg. 1 to 3."""
    run, clock, noise = begin(model, x, sigmas, extra_args, callback, noise_sampler or default_noise(x, (extra_args or {}).get("seed")))
    psi = noise_scaler or default_noise_scaler
    levels = [sigma / clock.alpha(sigma) for sigma in run.sigmas]
    x0_previous: Tensor | None = None
    d_previous: Tensor | None = None
    for i, sigma, sigma_next in run.pairs():
        x0 = run.denoise(x, sigma)
        run.report(i, x, x0)
        if sigma_next == 0:
            x = x0
            continue
        level, level_next = levels[i], levels[i + 1]
        alpha, alpha_next = clock.alpha(sigma), clock.alpha(sigma_next)
        psi_next = _number(psi, level_next)
        r = psi_next / _number(psi, level)
        x = x * (alpha_next / alpha * r) + x0 * (alpha_next * (1 - r))
        d_1: Tensor | None = None
        if max_stage >= 2 and x0_previous is not None:
            whole, rising, dt = _integrals(psi, level, level_next)
            d_1 = (x0 - x0_previous) / (level - levels[i - 1])
            x = x + d_1 * (alpha_next * (dt + whole * psi_next))
            if max_stage >= 3 and d_previous is not None:
                d_2 = (d_1 - d_previous) / ((level - levels[i - 2]) / 2)
                x = x + d_2 * (alpha_next * (dt**2 / 2 + rising * psi_next))
        if s_noise > 0:
            spread = math.sqrt(max(level_next**2 - level**2 * r**2, 0.0))
            x = x + noise(sigma, sigma_next) * (alpha_next * s_noise * spread)
        x0_previous, d_previous = x0, d_1
    return x


def _number(psi: NoiseScaler, level: float) -> float:
    return float(psi(torch.tensor(level, dtype=torch.float64)))


def _integrals(psi: NoiseScaler, level: float, level_next: float) -> tuple[float, float, float]:
    """(integral of 1/psi, integral of (l - L)/psi, L' - L): left Riemann sums from L' up to L."""
    dt = level_next - level
    step = -dt / POINTS
    at = level_next + torch.arange(POINTS, dtype=torch.float64) * step
    inverse = 1 / psi(at)
    return float(inverse.sum() * step), float(((at - level) * inverse).sum() * step), dt


def sample_seeds_2(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    r: float = 0.5,
) -> Tensor:
    """SEEDS-2. Gonzalez et al. 2023, arXiv:2305.14267, Alg. 2."""
    stage = _Stages(model, x, sigmas, extra_args, callback, noise_sampler, eta, s_noise)
    for i, sigma, sigma_next in stage.run.pairs():
        x0 = stage.run.denoise(x, sigma)
        stage.run.report(i, x, x0)
        if sigma_next == 0:
            x = x0
            continue
        stage.begin(x, sigma, sigma_next)
        sigma_1 = stage.point(r)
        x0_1 = stage.run.denoise(stage.reach(x0, r, sigma_1), sigma_1)
        mixed = x0 * (1 - 1 / (2 * r)) + x0_1 * (1 / (2 * r))
        x = stage.reach(mixed, 1.0, sigma_next)
    return x


def sample_seeds_3(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    r_1: float = 1.0 / 3,
    r_2: float = 2.0 / 3,
) -> Tensor:
    """SEEDS-3. arXiv:2305.14267, Alg. 3."""
    stage = _Stages(model, x, sigmas, extra_args, callback, noise_sampler, eta, s_noise)
    for i, sigma, sigma_next in stage.run.pairs():
        x0 = stage.run.denoise(x, sigma)
        stage.run.report(i, x, x0)
        if sigma_next == 0:
            x = x0
            continue
        stage.begin(x, sigma, sigma_next)
        sigma_1, sigma_2 = stage.point(r_1), stage.point(r_2)
        x0_1 = stage.run.denoise(stage.reach(x0, r_1, sigma_1), sigma_1)
        second = stage.reach(x0, r_2, sigma_2, (x0_1 - x0) * (r_2 / r_1))
        x0_2 = stage.run.denoise(second, sigma_2)
        x = stage.reach(x0, 1.0, sigma_next, (x0_2 - x0) * (1 / r_2))
    return x


class _Stages:
    """One SEEDS step: the points inside it, each reached from the step's start, and the noise that grows along the way."""

    def __init__(
        self,
        model: Model,
        x: Tensor,
        sigmas: Tensor,
        extra_args: Options | None,
        callback: Callback | None,
        noise_sampler: NoiseSampler | None,
        eta: float,
        s_noise: float,
    ) -> None:
        self.run = Run(model, x, sigmas, extra_args, callback)
        self.clock = clock_of(model)
        self.noise = noise_sampler or default_noise(x, self.run.seed)
        self.run.sigmas = self.clock.below_one(self.run.sigmas)
        self.eta, self.s_noise = eta, s_noise

    def begin(self, x: Tensor, sigma: float, sigma_next: float) -> None:
        """Start a step from x."""
        self.x, self.sigma = x, sigma
        self.lam = self.clock.lam(sigma)
        self.lam_next = self.clock.lam(sigma_next)
        self.h = self.lam_next - self.lam
        self.drawn: Tensor | None = None
        self.at, self.sigma_at = 0.0, sigma

    def point(self, part: float) -> float:
        """The sigma after `part` of the step."""
        return self.clock.between(self.lam, self.lam_next, part)

    def reach(self, x0: Tensor, part: float, target: float, bend: Tensor | None = None) -> Tensor:
        """x after `part` of the step, at sigma `target`, with a first-order correction of x0 if given."""
        k_h = part * self.h * (1 + self.eta)
        alpha = self.clock.alpha(target)
        x = self.x * (target / self.sigma * math.exp(-part * self.h * self.eta)) - x0 * (alpha * math.expm1(-k_h))
        if bend is not None:
            x = x + bend * (alpha * (math.expm1(-k_h) / k_h + 1))
        if self.eta > 0 and self.s_noise > 0:
            x = x + self._grown(part, target) * (target * self.s_noise)
        return x

    def _grown(self, part: float, target: float) -> Tensor:
        back = (self.at - part) * self.h * self.eta
        fresh = self.noise(self.sigma_at, target) * math.sqrt(-math.expm1(2 * back))
        self.drawn = fresh if self.drawn is None else self.drawn * math.exp(back) + fresh
        self.at, self.sigma_at = part, target
        return self.drawn
