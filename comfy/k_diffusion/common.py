"""What every sampler needs: a run over host-side sigmas, the two families' clocks, ancestral splits, noise sources.

The scalars of a step (sigma ratios, exponentials) are computed on the host in double precision before or between the
model calls; no sampler but the adaptive one waits for the device inside its loop.

sigma  a level as a float       x  (b, c, ...) on the device       lam  half log-SNR, ln(alpha / sigma)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from comfy.sampling.host import host_list, level, round32
from comfy.sampling.noise import BrownianTreeNoiseSampler, Continued, NoiseSampler, default_noise_sampler
from comfy.sampling.prediction import CONST

Options = dict[str, Any]
Callback = Callable[[dict[str, Any]], None]
#: (x, sigma_b, **extra_args) -> x0
Model = Callable[..., Tensor]


class Run:
    """One walk down a list of sigmas: asks the model, reports steps."""

    def __init__(self, model: Model, x: Tensor, sigmas: Tensor, extra_args: Options | None, callback: Callback | None) -> None:
        self.model = model
        self.device_sigmas = sigmas
        self.sigmas = host_list(sigmas)
        self.extra_args: Options = {} if extra_args is None else extra_args
        self.callback = callback
        self.steps = len(self.sigmas) - 1
        self.seed: int | None = self.extra_args.get("seed")
        #: the negative's prediction of the last call; kept when `keep_uncond` was called
        self.uncond: Tensor | None = None

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """The guided prediction at (x, sigma)."""
        return self.model(x, level(sigma, x), **self.extra_args)

    def report(self, i: int, x: Tensor, x0: Tensor, sigma_hat: float | None = None) -> None:
        """Tell the callback about step i."""
        if self.callback is not None:
            sigma = self.device_sigmas[i]
            hat = sigma if sigma_hat is None or sigma_hat == self.sigmas[i] else level(sigma_hat, x)[0]
            self.callback({"i": i, "x": x, "sigma": sigma, "sigma_hat": hat, "denoised": x0})

    def pairs(self) -> list[tuple[int, float, float]]:
        """(i, sigma_i, sigma_i+1) of every step."""
        return [(i, self.sigmas[i], self.sigmas[i + 1]) for i in range(self.steps)]

    def keep_uncond(self) -> None:
        """Have the negative evaluated at every call, at scale 1 too, and keep its prediction in `uncond`."""

        def keep(args: Options) -> Tensor:
            self.uncond = args["uncond_denoised"]
            denoised: Tensor = args["denoised"]
            return denoised

        options = dict(self.extra_args.get("model_options") or {})
        options["sampler_post_cfg_function"] = [*options.get("sampler_post_cfg_function", []), keep]
        options["disable_cfg1_optimization"] = True
        self.extra_args = {**self.extra_args, "model_options": options}

    def kept(self) -> Tensor:
        """The negative's prediction of the last call."""
        assert self.uncond is not None
        return self.uncond


class Clock:
    """The half log-SNR of one family: VE (alpha = 1) or flow (alpha = 1 - sigma).

    In float32: a sigma between two of the list is a time on the Brownian path, where the last bits make another path.
    """

    def __init__(self, flow: bool, percent_to_sigma: Callable[[float], float] | None = None) -> None:
        self.flow = flow
        self.percent_to_sigma = percent_to_sigma

    def alpha(self, sigma: float) -> float:
        """The factor of the clean latent at sigma."""
        return 1.0 - sigma if self.flow else 1.0

    def lam(self, sigma: float) -> float:
        """ln(alpha / sigma); minus infinity at a flow's sigma 1."""
        now = torch.tensor(sigma, dtype=torch.float32)
        return float(-now.logit() if self.flow else -now.log())

    def sigma(self, lam: float) -> float:
        """The inverse of `lam`."""
        now = -torch.tensor(lam, dtype=torch.float32)
        return float(now.sigmoid() if self.flow else now.exp())

    def between(self, lam: float, lam_next: float, part: float) -> float:
        """The sigma after `part` of the way from lam to lam_next."""
        start, end = torch.tensor(lam, dtype=torch.float32), torch.tensor(lam_next, dtype=torch.float32)
        return self.sigma(float(start + part * (end - start)))

    def below_one(self, sigmas: list[float]) -> list[float]:
        """A copy whose first sigma has a finite half log-SNR: a flow's 1 is replaced by the sigma of 0.01 percent."""
        if self.flow and len(sigmas) > 1 and sigmas[0] >= 1.0 and self.percent_to_sigma is not None:
            return [round32(self.percent_to_sigma(1e-4)), *sigmas[1:]]
        return list(sigmas)


def model_sampling_of(model: Any) -> Any:
    """The sampling type behind a sampler's model, or None for a bare function."""
    guider = getattr(model, "inner_model", None)
    patcher = getattr(guider, "model_patcher", None)
    if patcher is not None:
        return patcher.get_model_object("model_sampling")
    return getattr(getattr(guider, "inner_model", None), "model_sampling", None)


def clock_of(model: Any) -> Clock:
    """The clock of the model's family; a bare function counts as VE."""
    model_sampling = model_sampling_of(model)
    return Clock(isinstance(model_sampling, CONST), getattr(model_sampling, "percent_to_sigma", None))


def brownian(model: Any, x: Tensor, sigmas: Tensor, seed: int | None, cpu: bool = True) -> NoiseSampler:
    """The Brownian path over the list as it is given: its least positive to its greatest sigma."""
    values = [sigma for sigma in host_list(sigmas) if sigma > 0]
    return BrownianTreeNoiseSampler(x, min(values), max(values), seed=seed, cpu=cpu)


def continued_of(model: Any, seed: int | None, x: Tensor) -> Continued:
    """The stream that the reference's global generators would give from here on."""
    known = getattr(model, "continued", None)
    return known if known is not None else Continued(x, seed)


def default_noise(x: Tensor, seed: int | None) -> NoiseSampler:
    """The ancestral samplers' source: a new generator on x's device."""
    sampler: NoiseSampler = default_noise_sampler(x, seed=seed)
    return sampler


def append_dims(x: Tensor, target_dims: int) -> Tensor:
    """x with dimensions of length 1 appended up to `target_dims`. Raises ValueError when it has more."""
    missing = target_dims - x.ndim
    if missing < 0:
        raise ValueError(f"input has {x.ndim} dims but target_dims is {target_dims}, which is less")
    return x[(...,) + (None,) * missing]


def to_d(x: Tensor, sigma: Any, denoised: Tensor) -> Tensor:
    """The slope dx/dsigma of the probability flow, (x - x0) / sigma. arXiv:2206.00364, eq. 3."""
    return (x - denoised) / (append_dims(sigma, x.ndim) if isinstance(sigma, Tensor) else sigma)


def get_ancestral_step(sigma_from: Any, sigma_to: Any, eta: float = 1.0) -> tuple[Any, Any]:
    """(sigma_down, sigma_up) of the VE split (`ve_split`); numbers or () tensors."""
    if not eta:
        return sigma_to, 0.0
    up = min(sigma_to, eta * (sigma_to**2 * (sigma_from**2 - sigma_to**2) / sigma_from**2) ** 0.5)
    return (sigma_to**2 - up**2) ** 0.5, up


def ve_split(sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
    """(sigma_down, sigma_up): noise of variance sigma_up^2 brings sigma_down to sigma_next. arXiv:2010.02502, eq. 16.

    In float32, as recorded: after a big step sigma_down is a difference that cancels, and its rounding shows.
    """
    if not eta:
        return sigma_next, 0.0
    down, up = get_ancestral_step(torch.tensor(sigma), torch.tensor(sigma_next), eta)
    return float(down), float(up)


def flow_split(sigma: float, sigma_next: float, eta: float) -> tuple[float, float, float]:
    """(sigma_down, rescale, renoise): x at sigma_down, times `rescale`, plus `renoise` x noise is at sigma_next (contract B.3)."""
    down = sigma_next * (1.0 + eta * (sigma_next / sigma - 1.0))
    rescale = (1.0 - sigma_next) / (1.0 - down) if down < 1.0 else 0.0
    return down, rescale, math.sqrt(max(sigma_next**2 - down**2 * rescale**2, 0.0))
