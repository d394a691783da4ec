"""DPM-Solver++ without a stochastic path: two steps and one step, ancestral and with CFG++. Lu et al. 2022, arXiv:2211.01095."""

from __future__ import annotations

import math

from torch import Tensor

from comfy.k_diffusion.common import Callback, Model, Options, Run, clock_of, default_noise, flow_split, ve_split
from comfy.sampling.noise import NoiseSampler


def sample_dpmpp_2m(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
) -> Tensor:
    """DPM-Solver++(2M), Alg. 2; first and last step of first order."""
    run = Run(model, x, sigmas, extra_args, callback)
    previous: Tensor | None = None
    for i, sigma, sigma_next in run.pairs():
        x0 = run.denoise(x, sigma)
        run.report(i, x, x0)
        if sigma_next == 0:
            x = x0
        else:
            h = math.log(sigma / sigma_next)
            mixed = x0
            if previous is not None:
                r = math.log(run.sigmas[i - 1] / sigma) / h
                mixed = x0 * (1 + 1 / (2 * r)) - previous * (1 / (2 * r))
            x = x * (sigma_next / sigma) - mixed * math.expm1(-h)
        previous = x0
    return x


def sample_dpmpp_2m_cfg_pp(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
) -> Tensor:
    """DPM-Solver++(2M) with CFG++ (arXiv:2406.08070, contract B.3)."""
    run = Run(model, x, sigmas, extra_args, callback)
    run.keep_uncond()
    previous: Tensor | None = None
    for i, sigma, sigma_next in run.pairs():
        x0 = run.denoise(x, sigma)
        run.report(i, x, x0)
        uncond = run.kept()
        q = sigma_next / sigma
        moved = x0 + (x - uncond) * q
        if previous is not None and sigma_next > 0:
            h = math.log(sigma / sigma_next)
            r = math.log(run.sigmas[i - 1] / sigma) / h
            moved = moved - (x0 - previous) * (math.expm1(-h) / (2 * r))
        x, previous = moved, uncond
    return x


def sample_dpmpp_2s_ancestral(
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
    """DPM-Solver++(2S), Alg. 1, to a lower sigma, then noise up to the next."""
    run = Run(model, x, sigmas, extra_args, callback)
    clock = clock_of(model)
    noise = noise_sampler or default_noise(x, run.seed)
    for i, sigma, sigma_next in run.pairs():
        x0 = run.denoise(x, sigma)
        run.report(i, x, x0)
        if sigma_next == 0:
            x = x0
            continue
        if clock.flow:
            down, rescale, renoise = flow_split(sigma, sigma_next, eta)
            middle = 0.9999 if sigma == 1.0 else clock.sigma((clock.lam(sigma) + clock.lam(down)) / 2)
        else:
            (down, renoise), rescale = ve_split(sigma, sigma_next, eta), 1.0
            middle = math.sqrt(sigma * down)
        # -expm1(-h) with h = ln(sigma / down) is 1 - down / sigma: one formula for both families
        halfway = x * (middle / sigma) + x0 * (1 - middle / sigma)
        x = x * (down / sigma) + run.denoise(halfway, middle) * (1 - down / sigma)
        if eta > 0:
            x = x * rescale + noise(sigma, sigma_next) * (s_noise * renoise)
    return x


def sample_dpmpp_2s_ancestral_cfg_pp(
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
    """DPM-Solver++(2S) with CFG++: x is replaced by x + x0 - uncond in both stages; VE formulas for flow too (contract B.3)."""
    run = Run(model, x, sigmas, extra_args, callback)
    run.keep_uncond()
    noise = noise_sampler or default_noise(x, run.seed)
    for i, sigma, sigma_next in run.pairs():
        x0 = run.denoise(x, sigma)
        run.report(i, x, x0)
        down, up = ve_split(sigma, sigma_next, eta)
        if sigma_next == 0 or down == 0:
            x = x0 + (x - run.kept()) * (down / sigma)
        else:
            middle = math.sqrt(sigma * down)
            halfway = (x + x0 - run.kept()) * (middle / sigma) + x0 * (1 - middle / sigma)
            second = run.denoise(halfway, middle)
            x = (x + x0 - run.kept()) * (down / sigma) + second * (1 - down / sigma)
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * (s_noise * up)
    return x
