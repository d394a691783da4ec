"""The sampling types of the goldens by their recorded names, and which samplers need an optional package."""

from __future__ import annotations

import functools
from typing import Any

from comfy.sampling.parameterization import make_model_sampling


def flux_mu(width: int, height: int, base_shift: float = 0.5, max_shift: float = 1.15) -> float:
    """Linear in the number of 16 x 16 pixel tokens (contract A.1)."""
    tokens = width * height / 256
    return base_shift + (max_shift - base_shift) * (tokens - 256) / (4096 - 256)


_TYPES: dict[str, tuple[str, dict[str, Any]]] = {
    "sd15_eps": ("eps", {}),
    "sdxl_eps": ("eps", {}),
    "sd15_vpred": ("v_prediction", {}),
    "sd15_vpred_zsnr": ("v_prediction", {"zsnr": True}),
    "sd15_lcm": ("lcm", {}),
    "flow_shift1": ("flow", {}),
    "sd3_shift3": ("flow", {"shift": 3.0}),
    "auraflow_shift1.73": ("flow", {"shift": 1.73, "multiplier": 1.0}),
    "flux_shift1.15": ("flux", {}),
    "flux_1024x1024": ("flux", {"shift": flux_mu(1024, 1024)}),
    "flux_512x768": ("flux", {"shift": flux_mu(512, 768)}),
    "edm_default": ("edm", {}),
    "edm_playground": ("edm", {"sigma_max": 80.0, "sigma_data": 0.5}),
    "svd_vpred_edm": ("v_prediction_edm", {"sigma_max": 700.0}),
    "stableaudio_contv": ("v_prediction_continuous", {"sigma_min": 0.03, "sigma_max": 500.0}),
    "cascade_shift2": ("stable_cascade", {"shift": 2.0}),
    "cosmos_rflow": ("flow_cosmos", {}),
}


@functools.cache
def sampling_type(name: str) -> Any:
    kind, settings = _TYPES[name]
    return make_model_sampling(kind, **settings)


def needs_torchsde(sampler: str) -> bool:
    """Whether a sampler draws from a Brownian path, which the package torchsde makes."""
    return sampler.startswith("dpmpp_") and "sde" in sampler
