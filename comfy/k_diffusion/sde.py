"""SDE solvers in the half log-SNR: DPM-Solver++ (one and two estimates back) and SEEDS, over one Brownian path.

Lu et al. 2022, arXiv:2211.01095; Gonzalez et al. 2023, arXiv:2305.14267.
"""

from __future__ import annotations

import math

from torch import Tensor

from comfy.errors import InputUnusable
from comfy.k_diffusion.common import Callback, Clock, Model, Options, Run, brownian, clock_of, ve_split
from comfy.sampling.noise import NoiseSampler


def begin(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None,
    callback: Callback | None,
    noise_sampler: NoiseSampler | None,
    cpu: bool = True,
) -> tuple[Run, Clock, NoiseSampler]:
    """The run, its clock and its noise; the path is fixed by the list as given, before a flow's first sigma is lowered."""
    run = Run(model, x, sigmas, extra_args, callback)
    clock = clock_of(model)
    noise = noise_sampler or brownian(model, x, sigmas, run.seed, cpu=cpu)
    run.sigmas = clock.below_one(run.sigmas)
    return run, clock, noise


def sample_dpmpp_sde(
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
    cpu: bool = True,
) -> Tensor:
    """DPM-Solver++ (stochastic), two stages, each with an ancestral split of sigma / alpha."""
    if len(sigmas) <= 1:
        return x
    run, clock, noise = begin(model, x, sigmas, extra_args, callback, noise_sampler, cpu)
    for i, sigma, sigma_next in run.pairs():
        x0 = run.denoise(x, sigma)
        run.report(i, x, x0)
        if sigma_next == 0:
            x = x0
            continue
        lam, lam_next = clock.lam(sigma), clock.lam(sigma_next)
        middle = clock.between(lam, lam_next, r)
        inner = _split_step(clock, x, x0, sigma, middle, eta, s_noise, noise)
        x0_inner = run.denoise(inner, middle)
        mixed = x0 * (1 - 1 / (2 * r)) + x0_inner * (1 / (2 * r))
        x = _split_step(clock, x, mixed, sigma, sigma_next, eta, s_noise, noise)
    return x


def _split_step(
    clock: Clock, x: Tensor, x0: Tensor, sigma: float, target: float, eta: float, s_noise: float, noise: NoiseSampler
) -> Tensor:
    lam, alpha, alpha_target = clock.lam(sigma), clock.alpha(sigma), clock.alpha(target)
    down, up = ve_split(math.exp(-lam), math.exp(-clock.lam(target)), eta)
    h = -math.log(down) - lam if down > 0 else math.inf
    x = x * (alpha_target / alpha * math.exp(-h)) - x0 * (alpha_target * math.expm1(-h))
    if eta > 0 and s_noise > 0:
        x = x + noise(sigma, target) * (alpha_target * s_noise * up)
    return x


def sample_dpmpp_2m_sde(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    solver_type: str = "midpoint",
    cpu: bool = True,
) -> Tensor:
    """DPM-Solver++(2M) SDE. Raises InputUnusable for another solver type than heun or midpoint."""
    if solver_type not in ("heun", "midpoint"):
        raise InputUnusable("The solver type must be heun or midpoint.", solver_type=solver_type)
    if len(sigmas) <= 1:
        return x
    run, clock, noise = begin(model, x, sigmas, extra_args, callback, noise_sampler, cpu)
    previous: Tensor | None = None
    h_previous = 0.0
    for i, sigma, sigma_next in run.pairs():
        x0 = run.denoise(x, sigma)
        run.report(i, x, x0)
        if sigma_next == 0:
            x = x0
            continue
        h = clock.lam(sigma_next) - clock.lam(sigma)
        x = base_step(clock, x, x0, sigma, sigma_next, h, eta)
        if previous is not None:
            k_h, alpha_next = (1 + eta) * h, clock.alpha(sigma_next)
            if solver_type == "heun":
                weight = alpha_next * (math.expm1(-k_h) / k_h + 1)
            else:
                weight = -0.5 * alpha_next * math.expm1(-k_h)
            x = x + (x0 - previous) * (weight * h / h_previous)
        x = noised(x, sigma, sigma_next, h, eta, s_noise, noise)
        previous, h_previous = x0, h
    return x


def base_step(clock: Clock, x: Tensor, x0: Tensor, sigma: float, sigma_next: float, h: float, eta: float) -> Tensor:
    """The first-order part: (sigma'/sigma) e^(-eta h) x - alpha' expm1(-(1 + eta) h) x0."""
    k_h = (1 + eta) * h
    return x * (sigma_next / sigma * math.exp(-eta * h)) - x0 * (clock.alpha(sigma_next) * math.expm1(-k_h))


def noised(x: Tensor, sigma: float, sigma_next: float, h: float, eta: float, s_noise: float, noise: NoiseSampler) -> Tensor:
    """x plus the step's noise, sigma' sqrt(1 - e^(-2 eta h)) N."""
    if eta > 0 and s_noise > 0:
        x = x + noise(sigma, sigma_next) * (sigma_next * math.sqrt(-math.expm1(-2 * h * eta)) * s_noise)
    return x


def sample_dpmpp_3m_sde(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    cpu: bool = True,
) -> Tensor:
    """DPM-Solver++(3M) SDE."""
    if len(sigmas) <= 1:
        return x
    run, clock, noise = begin(model, x, sigmas, extra_args, callback, noise_sampler, cpu)
    known: list[Tensor] = []
    lengths: list[float] = []
    for i, sigma, sigma_next in run.pairs():
        x0 = run.denoise(x, sigma)
        run.report(i, x, x0)
        if sigma_next == 0:
            x = x0
            continue
        h = clock.lam(sigma_next) - clock.lam(sigma)
        k_h, alpha_next = (1 + eta) * h, clock.alpha(sigma_next)
        x = base_step(clock, x, x0, sigma, sigma_next, h, eta)
        p_2 = math.expm1(-k_h) / k_h + 1
        p_3 = p_2 / k_h - 0.5
        if len(known) == 2:
            r_0, r_1 = lengths[0] / h, lengths[1] / h
            d_0, d_1 = (x0 - known[0]) / r_0, (known[0] - known[1]) / r_1
            bend = (d_0 - d_1) / (r_0 + r_1)
            x = x + (d_0 + bend * r_0) * (alpha_next * p_2) - bend * (alpha_next * p_3)
        elif len(known) == 1:
            x = x + (x0 - known[0]) * (alpha_next * p_2 * h / lengths[0])
        x = noised(x, sigma, sigma_next, h, eta, s_noise, noise)
        known, lengths = [x0, *known[:1]], [h, *lengths[:1]]
    return x


def sample_dpmpp_2m_sde_heun(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    solver_type: str = "heun",
) -> Tensor:
    """DPM-Solver++(2M) SDE with Heun's weights."""
    return sample_dpmpp_2m_sde(model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, solver_type)


def sample_dpmpp_2m_sde_heun_gpu(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    solver_type: str = "heun",
) -> Tensor:
    """The same with the path drawn on the compute device."""
    return sample_dpmpp_2m_sde(model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, solver_type, cpu=False)


def sample_dpmpp_2m_sde_gpu(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    solver_type: str = "midpoint",
) -> Tensor:
    """DPM-Solver++(2M) SDE with the path drawn on the compute device."""
    return sample_dpmpp_2m_sde(model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, solver_type, cpu=False)


def sample_dpmpp_3m_sde_gpu(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:
    """DPM-Solver++(3M) SDE with the path drawn on the compute device."""
    return sample_dpmpp_3m_sde(model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, cpu=False)


def sample_dpmpp_sde_gpu(
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
    """DPM-Solver++ (stochastic) with the path drawn on the compute device."""
    return sample_dpmpp_sde(model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, r, cpu=False)
