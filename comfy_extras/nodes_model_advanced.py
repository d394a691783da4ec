"""Nodes that give a model another sampling type, rescaled guidance or another precision. Contract: goldens README A.1, D.1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from comfy import latent_formats
from comfy.nodes.v1 import number, required, rounded
from comfy.sampling import variants
from comfy.sampling.parameterization import (
    ModelSamplingContinuousEDM as EdmTable,
)
from comfy.sampling.parameterization import (
    ModelSamplingContinuousV as VTable,
)
from comfy.sampling.parameterization import (
    ModelSamplingCosmosRFlow as CosmosTable,
)
from comfy.sampling.parameterization import (
    ModelSamplingDiscrete as DiscreteTable,
)
from comfy.sampling.parameterization import (
    ModelSamplingDiscreteDistilled as DistilledTable,
)
from comfy.sampling.parameterization import (
    ModelSamplingDiscreteFlow as FlowTable,
)
from comfy.sampling.parameterization import (
    ModelSamplingFlux as FluxTable,
)
from comfy.sampling.parameterization import (
    StableCascadeSampling as CascadeTable,
)
from comfy.sampling.parameterization import (
    combine,
)
from comfy.sampling.prediction import CONST, COSMOS_RFLOW, EDM, EPS, IMG_TO_IMG, LCM, V_PREDICTION, X0


def with_sampling(model: Any, sampling: Any) -> tuple[Any]:
    """A copy of the handle that samples with `sampling`."""
    changed = model.clone()
    changed.add_object_patch("model_sampling", sampling)
    return (changed,)


def config_of(model: Any) -> Any:
    """The family's configuration, whose sampling settings stay where the node sets none."""
    return getattr(model.model, "model_config", None)


class _Patch:
    CATEGORY, FUNCTION, RETURN_TYPES = "advanced/model", "patch", ("MODEL",)


class ModelSamplingDiscrete(_Patch):
    """Say what a model of the discrete kind predicts."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        kinds = ["eps", "v_prediction", "lcm", "x0", "img_to_img"]
        return required(model=("MODEL",), sampling=(kinds,), zsnr=("BOOLEAN", {"default": False}))

    def patch(self, model: Any, sampling: str, zsnr: bool) -> tuple[Any]:
        predictions = {"eps": EPS, "v_prediction": V_PREDICTION, "lcm": LCM, "x0": X0, "img_to_img": IMG_TO_IMG}
        table = DistilledTable if sampling == "lcm" else DiscreteTable
        return with_sampling(model, combine(table, predictions[sampling])(config_of(model), zsnr=zsnr))


class ModelSamplingContinuousEDM(_Patch):
    """A log-uniform range of sigmas."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        kinds = ["v_prediction", "edm", "edm_playground_v2.5", "eps", "cosmos_rflow"]
        high, low = number(120.0, 0.0, 1000.0, 0.001), number(0.002, 0.0, 1000.0, 0.001)
        return required(model=("MODEL",), sampling=(kinds,), sigma_max=high, sigma_min=low)

    def patch(self, model: Any, sampling: str, sigma_max: float, sigma_min: float) -> tuple[Any]:
        playground = sampling == "edm_playground_v2.5"
        table, prediction = {
            "v_prediction": (EdmTable, V_PREDICTION),
            "eps": (EdmTable, EPS),
            "cosmos_rflow": (CosmosTable, COSMOS_RFLOW),
        }.get(sampling, (EdmTable, EDM))
        kind = combine(table, prediction)(config_of(model))
        kind.set_parameters(sigma_min, sigma_max, 0.5 if playground else 1.0)
        (changed,) = with_sampling(model, kind)
        if playground:
            changed.add_object_patch("latent_format", latent_formats.SDXL_Playground_2_5())
        return (changed,)


class ModelSamplingContinuousV(_Patch):
    """A log-uniform range of sigmas with angles as timesteps."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        high, low = number(500.0, 0.0, 1000.0, 0.001), number(0.03, 0.0, 1000.0, 0.001)
        return required(model=("MODEL",), sampling=(["v_prediction"],), sigma_max=high, sigma_min=low)

    def patch(self, model: Any, sampling: str, sigma_max: float, sigma_min: float) -> tuple[Any]:
        kind = combine(VTable, V_PREDICTION)(config_of(model))
        kind.set_parameters(sigma_min, sigma_max, 1.0)
        return with_sampling(model, kind)


class ModelSamplingStableCascade(_Patch):
    """The shift of Stable Cascade."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(model=("MODEL",), shift=rounded(2.0, 0.0, 100.0))

    def patch(self, model: Any, shift: float) -> tuple[Any]:
        kind = combine(CascadeTable, EPS)(config_of(model))
        kind.set_parameters(shift)
        return with_sampling(model, kind)


class ModelSamplingSD3(_Patch):
    """The shift of SD3."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(model=("MODEL",), shift=rounded(3.0, 0.0, 100.0))

    def patch(self, model: Any, shift: float, multiplier: float = 1000) -> tuple[Any]:
        kind = combine(FlowTable, CONST)(config_of(model))
        kind.set_parameters(shift=shift, multiplier=multiplier)
        return with_sampling(model, kind)


class ModelSamplingAuraFlow(ModelSamplingSD3):
    """The shift of AuraFlow, whose timesteps are the sigmas."""

    FUNCTION = "patch_aura"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(model=("MODEL",), shift=rounded(1.73, 0.0, 100.0))

    def patch_aura(self, model: Any, shift: float) -> tuple[Any]:
        return self.patch(model, shift, multiplier=1.0)


def flux_mu(width: int, height: int, base_shift: float, max_shift: float) -> float:
    """mu, linear in the number of 16 x 16 pixel tokens through (256, base) and (4096, max)."""
    tokens = width * height / (8 * 8 * 2 * 2)
    slope = (max_shift - base_shift) / (4096 - 256)
    return tokens * slope + base_shift - slope * 256


class ModelSamplingFlux(_Patch):
    """The shift of Flux for a size of the picture."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        side = ("INT", {"default": 1024, "min": 16, "max": 16384, "step": 8})
        max_shift, base_shift = rounded(1.15, 0.0, 100.0), rounded(0.5, 0.0, 100.0)
        return required(model=("MODEL",), max_shift=max_shift, base_shift=base_shift, width=side, height=side)

    def patch(self, model: Any, max_shift: float, base_shift: float, width: int, height: int) -> tuple[Any]:
        kind = combine(FluxTable, CONST)(config_of(model))
        kind.set_parameters(shift=flux_mu(width, height, base_shift, max_shift))
        return with_sampling(model, kind)


@dataclass(frozen=True)
class Rescale:
    """Rescaled guidance in place of the plain one."""

    multiplier: float

    def __call__(self, args: dict[str, Any]) -> Tensor:
        x: Tensor = args["input"]
        c, u = args["cond_denoised"], args["uncond_denoised"]
        return x - variants.rescale(c, u, args["cond_scale"], x, args["sigma"], self.multiplier)


class RescaleCFG(_Patch):
    """Pull the spread of the guided prediction back to the positive's."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(model=("MODEL",), multiplier=rounded(0.7, 0.0, 1.0))

    def patch(self, model: Any, multiplier: float) -> tuple[Any]:
        changed = model.clone()
        changed.set_model_sampler_cfg_function(Rescale(multiplier))
        return (changed,)


class ModelComputeDtype(_Patch):
    """The precision that a model computes in."""

    CATEGORY = "advanced/debug/model"
    DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(model=("MODEL",), dtype=(["default", *cls.DTYPES],))

    def patch(self, model: Any, dtype: str) -> tuple[Any]:
        changed = model.clone()
        changed.set_model_compute_dtype(self.DTYPES.get(dtype))
        return (changed,)


NODE_CLASS_MAPPINGS = {
    cls.__name__: cls
    for cls in (
        ModelSamplingDiscrete,
        ModelSamplingContinuousEDM,
        ModelSamplingContinuousV,
        ModelSamplingStableCascade,
        ModelSamplingSD3,
        ModelSamplingAuraFlow,
        ModelSamplingFlux,
        RescaleCFG,
        ModelComputeDtype,
    )
}
