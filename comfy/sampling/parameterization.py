"""Sampling types: which sigmas a model knows, what its timesteps are, and what its output means (contract A.1).

A table class of `tables.py` or `flow_tables.py`, or a subclass of one, is joined with a class of `prediction.py`:
`class S(ModelSamplingDiscrete, EPS)` by hand, or `make_model_sampling("eps")` by name. Objects hold float32 CPU tensors
and plain numbers, pickle, and keep a copy of their table per device so that a step moves nothing.
"""

from __future__ import annotations

from typing import Any

from comfy.errors import InputUnusable
from comfy.sampling.flow_tables import ModelSamplingDiscreteFlow, ModelSamplingFlux, flow_shift, flux_shift
from comfy.sampling.prediction import CONST, COSMOS_RFLOW, EDM, EPS, IMG_TO_IMG, LCM, V_PREDICTION, X0
from comfy.sampling.tables import (
    ModelSamplingContinuousEDM,
    ModelSamplingContinuousV,
    ModelSamplingCosmosRFlow,
    ModelSamplingDiscrete,
    ModelSamplingDiscreteDistilled,
    SigmaTable,
    StableCascadeSampling,
    combine,
    zero_terminal_snr,
)

_KINDS: dict[str, tuple[type, type]] = {
    "eps": (ModelSamplingDiscrete, EPS),
    "v_prediction": (ModelSamplingDiscrete, V_PREDICTION),
    "v": (ModelSamplingDiscrete, V_PREDICTION),
    "x0": (ModelSamplingDiscrete, X0),
    "img_to_img": (ModelSamplingDiscrete, IMG_TO_IMG),
    "lcm": (ModelSamplingDiscreteDistilled, LCM),
    "edm": (ModelSamplingContinuousEDM, EDM),
    "eps_continuous": (ModelSamplingContinuousEDM, EPS),
    "v_prediction_edm": (ModelSamplingContinuousEDM, V_PREDICTION),
    "v_prediction_continuous": (ModelSamplingContinuousV, V_PREDICTION),
    "stable_cascade": (StableCascadeSampling, EPS),
    "flow": (ModelSamplingDiscreteFlow, CONST),
    "flux": (ModelSamplingFlux, CONST),
    "flow_cosmos": (ModelSamplingCosmosRFlow, COSMOS_RFLOW),
}


class _Settings:
    def __init__(self, sampling_settings: dict[str, Any]) -> None:
        self.sampling_settings = sampling_settings


def make_model_sampling(kind: str, **settings: Any) -> Any:
    """The sampling object of `kind` (a key of the table above) with `settings` such as shift, multiplier, sigma_min, zsnr.

    Raises InputUnusable for a kind that does not exist.
    """
    if kind not in _KINDS:
        raise InputUnusable("There is no such sampling type.", kind=kind, known=sorted(_KINDS))
    return combine(*_KINDS[kind])(_Settings(settings))


__all__ = [
    "ModelSamplingContinuousEDM",
    "ModelSamplingContinuousV",
    "ModelSamplingCosmosRFlow",
    "ModelSamplingDiscrete",
    "ModelSamplingDiscreteDistilled",
    "ModelSamplingDiscreteFlow",
    "ModelSamplingFlux",
    "SigmaTable",
    "StableCascadeSampling",
    "combine",
    "flow_shift",
    "flux_shift",
    "make_model_sampling",
    "zero_terminal_snr",
]
