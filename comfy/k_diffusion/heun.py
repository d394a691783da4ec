"""Second-order steps with churn: Heun, Heun++ and the midpoint method, plain and ancestral."""

from __future__ import annotations

import math

from torch import Tensor

from comfy.k_diffusion.common import Callback, Model, Options, Run, clock_of, continued_of, default_noise, flow_split, ve_split
from comfy.k_diffusion.euler import churned
from comfy.sampling.noise import NoiseSampler


def sample_heun(
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
    """Euler to the next sigma, corrected with the slope there. Karras et al. 2022, arXiv:2206.00364, Alg. 2."""
    run = Run(model, x, sigmas, extra_args, callback)
    noise = continued_of(model, run.seed, x)
    for i, sigma, sigma_next in run.pairs():
        x, sigma_hat = churned(x, sigma, run, noise, s_churn, s_tmin, s_tmax, s_noise)
        x0 = run.denoise(x, sigma_hat)
        run.report(i, x, x0, sigma_hat)
        d, dt = (x - x0) / sigma_hat, sigma_next - sigma_hat
        trial = x + d * dt
        if sigma_next == 0:
            x = trial
        else:
            d_2 = (trial - run.denoise(trial, sigma_next)) / sigma_next
            x = x + (d + d_2) * (dt / 2)
    return x


def sample_heunpp2(
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
    """Heun++: up to three slopes, weighted by how far their sigma lies below the first one of the run (contract B.3)."""
    run = Run(model, x, sigmas, extra_args, callback)
    noise = continued_of(model, run.seed, x)
    first, last = run.sigmas[0], run.sigmas[-1]
    for i, sigma, sigma_next in run.pairs():
        x, sigma_hat = churned(x, sigma, run, noise, s_churn, s_tmin, s_tmax, s_noise, always=True)
        x0 = run.denoise(x, sigma_hat)
        run.report(i, x, x0, sigma_hat)
        d, dt = (x - x0) / sigma_hat, sigma_next - sigma_hat
        trial = x + d * dt
        if sigma_next == last:
            x = trial
            continue
        d_2 = (trial - run.denoise(trial, sigma_next)) / sigma_next
        after = run.sigmas[i + 2]
        if after == last:
            w_2 = sigma_next / (2 * first)
            slope = d * (1 - w_2) + d_2 * w_2
        else:
            second = trial + d_2 * (after - sigma_next)
            d_3 = (second - run.denoise(second, after)) / after
            w_2, w_3 = sigma_next / (3 * first), after / (3 * first)
            slope = d * (1 - w_2 - w_3) + d_2 * w_2 + d_3 * w_3
        x = x + slope * dt
    return x


def sample_dpm_2(
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
    """The slope at the geometric mean of the two sigmas. DPM-Solver-2, Lu et al. 2022, arXiv:2206.00927."""
    run = Run(model, x, sigmas, extra_args, callback)
    noise = continued_of(model, run.seed, x)
    for i, sigma, sigma_next in run.pairs():
        x, sigma_hat = churned(x, sigma, run, noise, s_churn, s_tmin, s_tmax, s_noise)
        x0 = run.denoise(x, sigma_hat)
        run.report(i, x, x0, sigma_hat)
        x = midpoint(run, x, x0, sigma_hat, sigma_next)
    return x


def midpoint(run: Run, x: Tensor, x0: Tensor, sigma: float, target: float) -> Tensor:
    """One midpoint step from sigma to `target`; Euler when the target is 0."""
    d = (x - x0) / sigma
    if target == 0:
        return x + d * (target - sigma)
    middle = math.sqrt(sigma * target)
    halfway = x + d * (middle - sigma)
    return x + (halfway - run.denoise(halfway, middle)) * ((target - sigma) / middle)


def sample_dpm_2_ancestral(
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
    """A midpoint step to a lower sigma, then noise up to the next."""
    run = Run(model, x, sigmas, extra_args, callback)
    clock = clock_of(model)
    noise = noise_sampler or default_noise(x, run.seed)
    for i, sigma, sigma_next in run.pairs():
        x0 = run.denoise(x, sigma)
        run.report(i, x, x0)
        if clock.flow:
            down, rescale, renoise = flow_split(sigma, sigma_next, eta)
        else:
            (down, renoise), rescale = ve_split(sigma, sigma_next, eta), 1.0
        x = midpoint(run, x, x0, sigma, down)
        if sigma_next > 0 and eta > 0:
            x = x * rescale + noise(sigma, sigma_next) * (s_noise * renoise)
    return x
