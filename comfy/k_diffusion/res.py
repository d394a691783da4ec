"""Solvers that bend the Euler step with one earlier estimate or slope: RES and gradient estimation."""

from __future__ import annotations

import math

from torch import Tensor

from comfy.k_diffusion.common import Callback, Model, Options, Run, default_noise, ve_split
from comfy.sampling.noise import NoiseSampler


def res_multistep(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    eta: float = 0.0,
    cfg_pp: bool = False,
) -> Tensor:
    """Second-order exponential integrator over two estimates, to the lower sigma of an ancestral split.

    Zhang et al. 2023, arXiv:2308.02157; `cfg_pp` renoises along the negative's prediction (contract B.3).
    """
    run = Run(model, x, sigmas, extra_args, callback)
    if cfg_pp:
        run.keep_uncond()
    noise = noise_sampler or default_noise(x, run.seed)
    previous: Tensor | None = None
    previous_down = 0.0
    for i, sigma, sigma_next in run.pairs():
        x0 = run.denoise(x, sigma)
        run.report(i, x, x0)
        down, up = ve_split(sigma, sigma_next, eta)
        anchor = run.kept() if cfg_pp else x0
        if down == 0 or previous is None:
            x = x0 + (x - anchor) * (down / sigma)
        else:
            b_1, b_2, h = _res_weights(sigma, down, run.sigmas[i - 1], previous_down)
            from_x = x + (x0 - anchor) if cfg_pp else x
            x = from_x * math.exp(-h) + (anchor * b_1 + previous * b_2) * h
        if sigma_next > 0 and up > 0:
            x = x + noise(sigma, sigma_next) * (s_noise * up)
        previous, previous_down = anchor, down
    return x


def _res_weights(sigma: float, down: float, sigma_before: float, down_before: float) -> tuple[float, float, float]:
    """(b_1, b_2, h) of the two-step formula; a weight that is undefined counts as 0."""
    h = math.log(sigma / down)
    phi_1 = math.expm1(-h) / -h if h else math.nan
    phi_2 = (phi_1 - 1) / -h if h else math.nan
    c_2 = math.log(down_before / sigma_before) / h if h and down_before > 0 else math.nan
    b_2 = phi_2 / c_2 if c_2 else math.nan
    b_1 = phi_1 - b_2
    return (0.0 if math.isnan(b_1) else b_1), (0.0 if math.isnan(b_2) else b_2), h


def sample_res_multistep(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:
    """RES, two estimates, without noise. arXiv:2308.02157."""
    return res_multistep(model, x, sigmas, extra_args, callback, s_noise, noise_sampler)


def sample_res_multistep_cfg_pp(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:
    """RES with CFG++."""
    return res_multistep(model, x, sigmas, extra_args, callback, s_noise, noise_sampler, cfg_pp=True)


def sample_res_multistep_ancestral(
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
    """RES with ancestral noise."""
    return res_multistep(model, x, sigmas, extra_args, callback, s_noise, noise_sampler, eta=eta)


def sample_res_multistep_ancestral_cfg_pp(
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
    """RES with ancestral noise and CFG++."""
    return res_multistep(model, x, sigmas, extra_args, callback, s_noise, noise_sampler, eta=eta, cfg_pp=True)


def sample_gradient_estimation(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    ge_gamma: float = 2.0,
    cfg_pp: bool = False,
) -> Tensor:
    """Euler with a corrected slope, gamma d + (1 - gamma) d_previous. Permenter and Yuan 2023, arXiv:2306.04848."""
    run = Run(model, x, sigmas, extra_args, callback)
    if cfg_pp:
        run.keep_uncond()
    d_previous: Tensor | None = None
    for i, sigma, sigma_next in run.pairs():
        x0 = run.denoise(x, sigma)
        run.report(i, x, x0)
        d = (x - (run.kept() if cfg_pp else x0)) / sigma
        dt = sigma_next - sigma
        if sigma_next == 0:
            x = x0
        else:
            x = x0 + d * sigma_next if cfg_pp else x + d * dt
            if d_previous is not None:
                x = x + (d - d_previous) * ((ge_gamma - 1) * dt)
        d_previous = d
    return x


def sample_gradient_estimation_cfg_pp(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    ge_gamma: float = 2.0,
) -> Tensor:
    """Gradient estimation with CFG++."""
    return sample_gradient_estimation(model, x, sigmas, extra_args, callback, disable, ge_gamma, cfg_pp=True)
