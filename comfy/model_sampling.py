"""Where custom nodes import sampling types from."""

from typing import Any

from comfy.sampling.parameterization import (
    ModelSamplingContinuousEDM,
    ModelSamplingContinuousV,
    ModelSamplingCosmosRFlow,
    ModelSamplingDiscrete,
    ModelSamplingDiscreteDistilled,
    ModelSamplingDiscreteFlow,
    ModelSamplingFlux,
    StableCascadeSampling,
    flow_shift,
    flux_shift,
    zero_terminal_snr,
)
from comfy.sampling.prediction import CONST, COSMOS_RFLOW, EDM, EPS, IMG_TO_IMG, LCM, V_PREDICTION, X0

time_snr_shift = flow_shift
rescale_zero_terminal_snr_sigmas = zero_terminal_snr


def flux_time_shift(mu: float, sigma: float, t: Any) -> Any:
    """The exponential shift as packs call it; `sigma` is the exponent of 1/t - 1, which Flux leaves at 1."""
    return flux_shift(mu, 1 / ((1 / t - 1) ** sigma + 1))


__all__ = [
    "CONST",
    "COSMOS_RFLOW",
    "EDM",
    "EPS",
    "IMG_TO_IMG",
    "LCM",
    "V_PREDICTION",
    "X0",
    "ModelSamplingContinuousEDM",
    "ModelSamplingContinuousV",
    "ModelSamplingCosmosRFlow",
    "ModelSamplingDiscrete",
    "ModelSamplingDiscreteDistilled",
    "ModelSamplingDiscreteFlow",
    "ModelSamplingFlux",
    "StableCascadeSampling",
    "flux_time_shift",
    "rescale_zero_terminal_snr_sigmas",
    "time_snr_shift",
]
