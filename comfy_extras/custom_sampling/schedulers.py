"""Nodes that give a list of sigmas. Maths: comfy/sampling/schedules.py and curves.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from comfy.nodes.v1 import number, required, rounded, whole
from comfy.sampling import curves, schedules
from comfy.sampling.ksampler import KSampler

CATEGORY = "sampling/custom_sampling/schedulers"
STEPS = whole(20, 1, 10000)
SIGMA_MAX = number(14.614642, 0.0, 5000.0)
SIGMA_MIN = number(0.0291675, 0.0, 5000.0)


class _Scheduler:
    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, "get_sigmas", ("SIGMAS",)


class BasicScheduler(_Scheduler):
    """A scheduler by name for a model; below denoise 1 the last steps of a longer list."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(model=("MODEL",), scheduler=(KSampler.SCHEDULERS,), steps=STEPS, denoise=rounded(1.0, 0.0, 1.0))

    def get_sigmas(self, model: Any, scheduler: str, steps: int, denoise: float) -> tuple[Tensor]:
        return (schedules.partial_sigmas(model.get_model_object("model_sampling"), scheduler, steps, denoise),)


class KarrasScheduler(_Scheduler):
    """Even steps of sigma^(1/rho)."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(steps=STEPS, sigma_max=SIGMA_MAX, sigma_min=SIGMA_MIN, rho=number(7.0, 0.0, 100.0))

    def get_sigmas(self, steps: int, sigma_max: float, sigma_min: float, rho: float) -> tuple[Tensor]:
        return (curves.karras(steps, sigma_min, sigma_max, rho),)


class ExponentialScheduler(_Scheduler):
    """Even steps of ln sigma."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(steps=STEPS, sigma_max=SIGMA_MAX, sigma_min=SIGMA_MIN)

    def get_sigmas(self, steps: int, sigma_max: float, sigma_min: float) -> tuple[Tensor]:
        return (curves.exponential(steps, sigma_min, sigma_max),)


class PolyexponentialScheduler(_Scheduler):
    """Steps of ln sigma along a power."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(steps=STEPS, sigma_max=SIGMA_MAX, sigma_min=SIGMA_MIN, rho=number(1.0, 0.0, 100.0))

    def get_sigmas(self, steps: int, sigma_max: float, sigma_min: float, rho: float) -> tuple[Tensor]:
        return (curves.polyexponential(steps, sigma_min, sigma_max, rho),)


class LaplaceScheduler(_Scheduler):
    """Quantiles of a Laplace distribution."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        mu, beta = number(0.0, -10.0, 10.0, 0.1), number(0.5, 0.0, 10.0, 0.1)
        return required(steps=STEPS, sigma_max=SIGMA_MAX, sigma_min=SIGMA_MIN, mu=mu, beta=beta)

    def get_sigmas(self, steps: int, sigma_max: float, sigma_min: float, mu: float, beta: float) -> tuple[Tensor]:
        return (curves.laplace(steps, sigma_min, sigma_max, mu, beta),)


class VPScheduler(_Scheduler):
    """The continuous variance-preserving schedule."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        beta_d, beta_min = number(19.9, 0.0, 5000.0), number(0.1, 0.0, 5000.0)
        return required(steps=STEPS, beta_d=beta_d, beta_min=beta_min, eps_s=number(0.001, 0.0, 1.0, 0.0001))

    def get_sigmas(self, steps: int, beta_d: float, beta_min: float, eps_s: float) -> tuple[Tensor]:
        return (curves.variance_preserving(steps, beta_d, beta_min, eps_s),)


class BetaSamplingScheduler(_Scheduler):
    """Quantiles of a Beta distribution over a model's table."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(model=("MODEL",), steps=STEPS, alpha=number(0.6, 0.0, 50.0), beta=number(0.6, 0.0, 50.0))

    def get_sigmas(self, model: Any, steps: int, alpha: float, beta: float) -> tuple[Tensor]:
        return (schedules.beta(model.get_model_object("model_sampling"), steps, alpha, beta),)


class SDTurboScheduler(_Scheduler):
    """The ten timesteps of SD-Turbo."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(model=("MODEL",), steps=whole(1, 1, 10), denoise=rounded(1.0, 0, 1.0))

    def get_sigmas(self, model: Any, steps: int, denoise: float) -> tuple[Tensor]:
        return (curves.turbo(model.get_model_object("model_sampling"), steps, denoise),)


NODES = {
    cls.__name__: cls
    for cls in (
        BasicScheduler,
        KarrasScheduler,
        ExponentialScheduler,
        PolyexponentialScheduler,
        LaplaceScheduler,
        VPScheduler,
        BetaSamplingScheduler,
        SDTurboScheduler,
    )
}
