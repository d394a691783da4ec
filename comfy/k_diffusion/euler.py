"""Euler steps, plain, ancestral and with CFG++, and the two samplers that renoise from a clean estimate."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from comfy.k_diffusion.common import (
    Callback,
    Clock,
    Model,
    Options,
    Run,
    clock_of,
    continued_of,
    default_noise,
    flow_split,
    model_sampling_of,
    ve_split,
)
from comfy.sampling.host import level
from comfy.sampling.noise import Continued, NoiseSampler

SQRT2_MINUS_1 = math.sqrt(2) - 1


def churned(
    x: Tensor, sigma: float, run: Run, noise: Continued, s_churn: float, s_tmin: float, s_tmax: float, s_noise: float, always: bool = False
) -> tuple[Tensor, float]:
    """Raise the noise level before a step. arXiv:2206.00364, Alg. 2. `always` draws even where nothing is added."""
    gamma = min(s_churn / run.steps, SQRT2_MINUS_1) if s_tmin <= sigma <= s_tmax else 0.0
    sigma_hat = sigma * (gamma + 1)
    if gamma > 0 or always:
        eps = noise.randn_like(x) * s_noise
        if gamma > 0:
            x = x + eps * math.sqrt(sigma_hat**2 - sigma**2)
    return x, sigma_hat


def sample_euler(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = float("inf"),
    s_noise: float = 1.0,
) -> Tensor:
    """Euler steps along dx/dsigma = (x - x0) / sigma. Karras et al. 2022, arXiv:2206.00364, Alg. 2 without its correction."""
    run = Run(model, x, sigmas, extra_args, callback)
    noise = continued_of(model, run.seed, x)
    for i, sigma, sigma_next in run.pairs():
        x, sigma_hat = churned(x, sigma, run, noise, s_churn, s_tmin, s_tmax, s_noise)
        x0 = run.denoise(x, sigma_hat)
        run.report(i, x, x0, sigma_hat)
        x = x + (x - x0) * ((sigma_next - sigma_hat) / sigma_hat)
    return x


def sample_euler_ancestral(
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
    """Euler to a lower sigma, then noise up to the next. Song et al. 2020, arXiv:2010.02502; for flow, contract B.3."""
    run = Run(model, x, sigmas, extra_args, callback)
    clock = clock_of(model)
    noise = noise_sampler or default_noise(x, run.seed)
    for i, sigma, sigma_next in run.pairs():
        x0 = run.denoise(x, sigma)
        run.report(i, x, x0)
        x = ancestral_move(x, x0, sigma, sigma_next, eta, s_noise, noise, clock)
    return x


def ancestral_move(
    x: Tensor, x0: Tensor, sigma: float, sigma_next: float, eta: float, s_noise: float, noise: NoiseSampler, clock: Clock
) -> Tensor:
    """One ancestral Euler step; x0 itself at the last sigma."""
    if sigma_next == 0:
        return x0
    if not clock.flow:
        down, up = ve_split(sigma, sigma_next, eta)
        if down == 0:  # all of the next level would be noise: recorded without it
            return x0
        x = x + (x - x0) * ((down - sigma) / sigma)
        return x + noise(sigma, sigma_next) * (s_noise * up)
    down, rescale, renoise = flow_split(sigma, sigma_next, eta)
    x = x * (down / sigma) + x0 * (1 - down / sigma)
    return x * rescale + noise(sigma, sigma_next) * (s_noise * renoise) if eta > 0 else x


def sample_euler_cfg_pp(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
) -> Tensor:
    """Euler with CFG++: renoise along the negative's noise. Chung et al. 2024, arXiv:2406.08070."""
    return sample_euler_ancestral_cfg_pp(model, x, sigmas, extra_args, callback, disable, eta=0.0)


def sample_euler_ancestral_cfg_pp(
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
    """Ancestral Euler with CFG++, split in the variable sigma / alpha. arXiv:2406.08070; for flow, contract B.3."""
    run = Run(model, x, sigmas, extra_args, callback)
    run.keep_uncond()
    clock = clock_of(model)
    noise = noise_sampler or default_noise(x, run.seed)
    for i, sigma, sigma_next in run.pairs():
        x0 = run.denoise(x, sigma)
        run.report(i, x, x0)
        if sigma_next == 0:
            x = x0
            continue
        alpha, alpha_next = clock.alpha(sigma), clock.alpha(sigma_next)
        target = sigma_next / alpha_next
        if alpha == 0:  # a flow's start: everything is noise
            down, up = (0.0, target) if eta else (target, 0.0)
        else:
            down, up = ve_split(sigma / alpha, target, eta)
        direction = (x - run.kept() * alpha) * (down / sigma)
        x = (x0 + direction) * alpha_next
        if eta:
            x = x + noise(sigma, sigma_next) * (s_noise * alpha_next * up)
    return x


def sample_ddpm(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:
    """Draws from the posterior of the variance-preserving chain. Ho et al. 2020, arXiv:2006.11239, eq. 6 and 7."""
    run = Run(model, x, sigmas, extra_args, callback)
    noise = noise_sampler or default_noise(x, run.seed)
    for i, sigma, sigma_next in run.pairs():
        x0 = run.denoise(x, sigma)
        run.report(i, x, x0)
        alpha_bar, alpha_bar_next = 1 / (1 + sigma**2), 1 / (1 + sigma_next**2)
        alpha = alpha_bar / alpha_bar_next
        eps = (x - x0) / sigma
        mean = (x * math.sqrt(alpha_bar) - eps * ((1 - alpha) / math.sqrt(1 - alpha_bar))) / math.sqrt(alpha)
        if sigma_next > 0:
            mean = mean + noise(sigma, sigma_next) * math.sqrt((1 - alpha) * (1 - alpha_bar_next) / (1 - alpha_bar))
        x = mean * math.sqrt(1 + sigma_next**2)
    return x


def sample_lcm(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:
    """Jump to the clean estimate and noise it again. Luo et al. 2023, arXiv:2310.04378, Alg. 3."""
    run = Run(model, x, sigmas, extra_args, callback)
    noise = noise_sampler or default_noise(x, run.seed)
    model_sampling: Any = model_sampling_of(model)
    for i, sigma, sigma_next in run.pairs():
        x0 = run.denoise(x, sigma)
        run.report(i, x, x0)
        x = x0
        if sigma_next > 0:
            drawn = noise(sigma, sigma_next)
            if model_sampling is not None:
                x = model_sampling.noise_scaling(level(sigma_next, x), drawn, x)
            else:
                x = x + drawn * sigma_next
    return x
