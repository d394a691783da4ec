"""Samplers that only nodes reach: LCM with growing latents, and Euler CFG++ in its second form (contract B.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from comfy.k_diffusion.common import Callback, Model, Options, Run, continued_of
from comfy.pixels.resize import common_upscale


def sample_lcm_upscale(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    total_upscale: float = 2.0,
    upscale_method: str = "bislerp",
    upscale_steps: int | None = None,
) -> Tensor:
    """LCM that resizes the clean estimate before it is noised again, from 1 to `total_upscale` over the first steps.

    Noise continues the stream of the initial noise and is added as sigma N, for flow too.
    """
    run = Run(model, x, sigmas, extra_args, callback)
    noise = continued_of(model, run.seed, x)
    count = max(len(run.sigmas) // 2 + 1, 2) if upscale_steps is None else min(upscale_steps + 1, len(run.sigmas) + 1)
    factors = torch.linspace(1, total_upscale, count).tolist()[1:]
    height, width = x.shape[-2:]
    for i, _, sigma_next in run.pairs():
        x0 = run.denoise(x, run.sigmas[i])
        run.report(i, x, x0)
        x = x0
        if i < len(factors):
            x = common_upscale(x, round(width * factors[i]), round(height * factors[i]), upscale_method, "disabled")
            # noise fills memory in order: channels last behind the recorded spherical resize of a batch
            last = upscale_method == "bislerp" and x.shape[0] > 1
            x = x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        if sigma_next > 0:
            x = x + noise.randn_like(x) * sigma_next
    return x


def sample_euler_cfg_pp_alternative(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
) -> Tensor:
    """x + (x - 2 x0 + uncond) / sigma (sigma' - sigma): the slope of CFG++ used for the whole step."""
    run = Run(model, x, sigmas, extra_args, callback)
    run.keep_uncond()
    for i, sigma, sigma_next in run.pairs():
        x0 = run.denoise(x, sigma)
        run.report(i, x, x0)
        x = x + (x - x0 - x0 + run.kept()) * ((sigma_next - sigma) / sigma)
    return x
