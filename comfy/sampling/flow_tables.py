"""Tables of sigmas for rectified flow (contract A.1)."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor

from comfy.sampling.tables import SigmaTable, settings_of


class ModelSamplingDiscreteFlow(SigmaTable):
    """Rectified flow with a timestep shift. Esser et al. 2024, arXiv:2403.03206, section 5.3.2."""

    def __init__(self, model_config: Any = None) -> None:
        settings = settings_of(model_config)
        self.set_parameters(settings.get("shift", 1.0), multiplier=settings.get("multiplier", 1000))

    def set_parameters(self, shift: float = 1.0, timesteps: int = 1000, multiplier: float = 1000) -> None:
        """Set the shift and the factor between sigma and timestep."""
        self.shift, self.multiplier = shift, multiplier
        self.set_sigmas(self.sigma(torch.arange(1, timesteps + 1) / timesteps * multiplier))

    def timestep(self, sigma: Tensor) -> Tensor:
        """sigma x multiplier: linear in the sigma that is already shifted, as the contract records."""
        return sigma * self.multiplier

    def sigma(self, timestep: Tensor) -> Tensor:
        """s u / (1 + (s - 1) u), u = t / multiplier."""
        return flow_shift(self.shift, timestep / self.multiplier)

    def percent_to_sigma(self, percent: float) -> float:
        return flow_percent(functools.partial(flow_shift, self.shift), percent)


class ModelSamplingFlux(SigmaTable):
    """Rectified flow with the exponential shift of Flux."""

    def __init__(self, model_config: Any = None) -> None:
        self.set_parameters(settings_of(model_config).get("shift", 1.15))

    def set_parameters(self, shift: float = 1.15, timesteps: int = 10000) -> None:
        """Set mu, here `shift`."""
        self.shift = shift
        self.set_sigmas(self.sigma(torch.arange(1, timesteps + 1) / timesteps))

    def timestep(self, sigma: Tensor) -> Tensor:
        """sigma itself."""
        return sigma

    def sigma(self, timestep: Tensor) -> Tensor:
        """e^mu / (e^mu + 1/t - 1)."""
        return flux_shift(self.shift, timestep)

    def percent_to_sigma(self, percent: float) -> float:
        return flow_percent(functools.partial(flux_shift, self.shift), percent)


def flow_shift(shift: float, u: Any) -> Any:
    """s u / (1 + (s - 1) u) for a number or a tensor."""
    return u if shift == 1.0 else shift * u / (1 + (shift - 1) * u)


def flux_shift(mu: float, u: Any) -> Any:
    """e^mu / (e^mu + 1/u - 1) for a number or a tensor."""
    return math.exp(mu) / (math.exp(mu) + (1 / u - 1))


def flow_percent(shift: Any, percent: float) -> float:
    """Percent -> sigma of the flow types: shift(1 - p), 1 at the start, 0 at the end."""
    if percent <= 0.0:
        return 1.0
    if percent >= 1.0:
        return 0.0
    return float(shift(1.0 - percent))
