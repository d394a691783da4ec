"""Tables of sigmas for noise and velocity prediction, and what all tables have in common (contract A.1)."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor

#: what `percent_to_sigma` gives for the very start of the variance-exploding types
ABOVE_ANY_SIGMA = 999999999.9
#: alpha-bar of the last step after the zero-terminal-SNR rescale: sigma 4518.76 instead of infinity
TERMINAL_ALPHA_BAR = 4.8973451890853435e-08


class SigmaTable:
    """A table of sigmas, ascending, index 0 = least noise, and the map between sigma and the network's timestep.

    sigmas      (n,) float32 on the CPU
    sigma_data  standard deviation that the parameterization assumes of the data
    """

    sigmas: Tensor
    sigma_data: float = 1.0

    def set_sigmas(self, sigmas: Tensor) -> None:
        """Replace the table; `sigmas` (n,) ascending, any float dtype."""
        self.sigmas = sigmas.detach().to("cpu", torch.float32)
        self.log_sigmas = sigmas.detach().cpu().log().float()  # of the unrounded table: schedules show the last bit
        self._copies: dict[torch.device, Tensor] = {}

    @property
    def sigma_min(self) -> Tensor:
        """The least sigma, a () float32 CPU tensor."""
        return self.sigmas[0]

    @property
    def sigma_max(self) -> Tensor:
        """The greatest sigma, a () float32 CPU tensor."""
        return self.sigmas[-1]

    def log_sigmas_on(self, device: torch.device) -> Tensor:
        """ln of the table on `device`, copied there once."""
        if device.type == "cpu":
            return self.log_sigmas
        copy = self._copies.get(device)
        if copy is None:
            copy = self._copies[device] = self.log_sigmas.to(device)
        return copy

    def timestep(self, sigma: Tensor) -> Tensor:
        """The timestep that the network is given for `sigma` (any shape)."""
        raise TypeError(f"{type(self).__name__} has no timesteps")

    def sigma(self, timestep: Tensor) -> Tensor:
        """The sigma of `timestep` (any shape)."""
        raise TypeError(f"{type(self).__name__} has no timesteps")

    def percent_to_sigma(self, percent: float) -> float:
        """The sigma at which `percent` (0 = start, 1 = end) of the sampling is done."""
        if percent <= 0.0:
            return ABOVE_ANY_SIGMA
        if percent >= 1.0:
            return 0.0
        return self._inner_percent(1.0 - percent)

    def _inner_percent(self, left: float) -> float:
        low, high = math.log(float(self.sigma_min)), math.log(float(self.sigma_max))
        return math.exp(low + (high - low) * left)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_copies": {}}

    def __deepcopy__(self, memo: dict[int, Any]) -> SigmaTable:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__getstate__())  # tensors of a table are replaced, never written to
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (getattr(type(self), "_parts", type(self)), self.__getstate__())


def settings_of(model_config: Any) -> dict[str, Any]:
    """`sampling_settings` of a family's configuration, or nothing."""
    return dict(getattr(model_config, "sampling_settings", None) or {})


@functools.cache
def combine(table: type, prediction: type) -> type:
    """The class that is both; its objects pickle although it has no importable name."""
    return type("ModelSampling", (table, prediction), {"_parts": (table, prediction)})


def _restore(parts: Any, state: dict[str, Any]) -> Any:
    cls = combine(*parts) if isinstance(parts, tuple) else parts
    obj = object.__new__(cls)
    obj.__dict__.update(state)
    return obj


class ModelSamplingDiscrete(SigmaTable):
    """The 1000 steps of the Stable Diffusion family: betas whose square roots are evenly spaced."""

    def __init__(self, model_config: Any = None, zsnr: bool | None = None) -> None:
        settings = settings_of(model_config)
        self.sigma_data = settings.get("sigma_data", 1.0)
        zsnr = bool(settings.get("zsnr", False)) if zsnr is None else zsnr
        self.num_timesteps = int(settings.get("timesteps", 1000))
        self.linear_start = settings.get("linear_start", 0.00085)
        self.linear_end = settings.get("linear_end", 0.012)
        self.zsnr = zsnr
        sigmas = discrete_sigmas(self.num_timesteps, self.linear_start, self.linear_end)
        self.set_sigmas(zero_terminal_snr(sigmas) if zsnr else sigmas)

    def timestep(self, sigma: Tensor) -> Tensor:
        """Index of the entry whose logarithm is nearest."""
        return self._nearest(sigma)

    def _nearest(self, sigma: Tensor) -> Tensor:
        logs = self.log_sigmas_on(sigma.device)
        distance = (sigma.float().log().reshape(1, -1) - logs[:, None]).abs()
        return distance.argmin(dim=0).view(sigma.shape)

    def sigma(self, timestep: Tensor) -> Tensor:
        """Linear interpolation of ln sigma between neighbouring entries; out-of-range timesteps are clamped."""
        return self._between(timestep.float())

    def _between(self, index: Tensor) -> Tensor:
        logs = self.log_sigmas_on(index.device)
        index = index.clamp(min=0.0, max=float(len(self.sigmas) - 1))
        low = index.floor().long()
        high = index.ceil().long()
        part = index.frac()
        return ((1.0 - part) * logs[low] + part * logs[high]).exp()

    def _inner_percent(self, left: float) -> float:
        return float(self.sigma(torch.tensor(left * 999.0)))


class ModelSamplingDiscreteDistilled(ModelSamplingDiscrete):
    """The same steps for a model distilled to every twentieth of them (LCM). Luo et al. 2023, arXiv:2310.04378."""

    original_timesteps = 50

    def __init__(self, model_config: Any = None, zsnr: bool | None = None) -> None:
        super().__init__(model_config, zsnr=zsnr)
        self.skip_steps = self.num_timesteps // self.original_timesteps
        self.set_sigmas(self.sigmas[self.skip_steps - 1 :: self.skip_steps])

    def timestep(self, sigma: Tensor) -> Tensor:
        """The original timestep of the nearest entry: 19, 39, ..., 999."""
        return self._nearest(sigma) * self.skip_steps + (self.skip_steps - 1)

    def sigma(self, timestep: Tensor) -> Tensor:
        """Interpolated as in the full table, over the entries that are left."""
        return self._between((timestep.float() - (self.skip_steps - 1)) / self.skip_steps)


class ModelSamplingContinuousEDM(SigmaTable):
    """A log-uniform range of sigmas; the timestep is ln(sigma) / 4. Karras et al. 2022, arXiv:2206.00364."""

    def __init__(self, model_config: Any = None) -> None:
        settings = settings_of(model_config)
        self.set_parameters(settings.get("sigma_min", 0.002), settings.get("sigma_max", 120.0), settings.get("sigma_data", 1.0))

    def set_parameters(self, sigma_min: float, sigma_max: float, sigma_data: float = 1.0) -> None:
        """Set the range; the table has 1000 entries."""
        self.sigma_data = sigma_data
        self.set_sigmas(torch.linspace(math.log(sigma_min), math.log(sigma_max), 1000).exp())

    def timestep(self, sigma: Tensor) -> Tensor:
        """ln(sigma) / 4."""
        return 0.25 * sigma.log()

    def sigma(self, timestep: Tensor) -> Tensor:
        """exp(4 t)."""
        return (timestep / 0.25).exp()


class ModelSamplingContinuousV(ModelSamplingContinuousEDM):
    """A log-uniform range of sigmas whose timestep is the angle of the velocity. arXiv:2202.00512."""

    def timestep(self, sigma: Tensor) -> Tensor:
        """atan(sigma), as a fraction of a right angle."""
        return sigma.atan() / math.pi * 2

    def sigma(self, timestep: Tensor) -> Tensor:
        """tan of the angle."""
        return (timestep * math.pi / 2).tan()


class ModelSamplingCosmosRFlow(ModelSamplingContinuousEDM):
    """Log-uniform sigmas over rectified-flow timesteps w = sigma / (sigma + 1)."""

    def __init__(self, model_config: Any = None) -> None:
        settings = settings_of(model_config)
        self.set_parameters(settings.get("sigma_min", 0.002), settings.get("sigma_max", 80.0), settings.get("sigma_data", 1.0))

    def timestep(self, sigma: Tensor) -> Tensor:
        """sigma / (sigma + 1)."""
        return sigma / (sigma + 1)

    def sigma(self, timestep: Tensor) -> Tensor:
        """t / (1 - t), at most the greatest sigma of the table."""
        highest = float(self.sigma_max)
        return torch.where(timestep >= 1.0, highest, timestep / (1 - timestep)).clamp(max=highest)


class StableCascadeSampling(SigmaTable):
    """Cosine schedule with a shifted log-SNR. Pernias et al. 2023, arXiv:2306.00637."""

    cosine_s = 8e-3

    def __init__(self, model_config: Any = None) -> None:
        self.set_parameters(settings_of(model_config).get("shift", 1.0))

    def set_parameters(self, shift: float = 1.0, cosine_s: float = 8e-3) -> None:
        """Set the shift and the cosine's offset; the table has 10000 entries."""
        self.shift, self.cosine_s = shift, cosine_s
        self.num_timesteps = 10000
        self.set_sigmas(self.sigma(torch.arange(1, self.num_timesteps + 1, dtype=torch.float32) / self.num_timesteps))

    def _start(self) -> Tensor:
        # in float32, as the recorded table: 1 - alpha-bar cancels for small sigmas, and the last bits show
        return torch.cos(torch.tensor([self.cosine_s]) / (1 + self.cosine_s) * math.pi * 0.5) ** 2

    def sigma(self, timestep: Tensor) -> Tensor:
        """sqrt((1 - a) / a), a the shifted alpha-bar clamped to [1e-4, 0.9999]."""
        angle = (timestep + self.cosine_s) / (1 + self.cosine_s) * math.pi * 0.5
        alpha_bar = angle.cos() ** 2 / self._start().to(timestep.device)
        if self.shift != 1.0:
            alpha_bar = ((alpha_bar / (1 - alpha_bar)).log() - 2 * math.log(self.shift)).sigmoid()
        alpha_bar = alpha_bar.clamp(1e-4, 0.9999)
        return ((1 - alpha_bar) / alpha_bar).sqrt()

    def timestep(self, sigma: Tensor) -> Tensor:
        """Inverse of the cosine without the shift."""
        alpha_bar = (1 / (sigma**2 + 1)).clamp(0, 1.0)
        angle = (alpha_bar.sqrt() * self._start().to(sigma.device) ** 0.5).acos()
        return angle / (math.pi * 0.5) * (1 + self.cosine_s) - self.cosine_s

    def _inner_percent(self, left: float) -> float:
        return float(self.sigma(torch.tensor([left])))


def discrete_sigmas(timesteps: int, linear_start: float, linear_end: float) -> Tensor:
    """(timesteps,) float64: sqrt((1 - a) / a), a the running product of 1 - beta, sqrt(beta) evenly spaced."""
    betas = torch.linspace(linear_start**0.5, linear_end**0.5, timesteps, dtype=torch.float64) ** 2
    alpha_bar = (1.0 - betas).cumprod(dim=0)
    return ((1 - alpha_bar) / alpha_bar).sqrt()


def zero_terminal_snr(sigmas: Tensor) -> Tensor:
    """Shift and scale sqrt(alpha-bar) so that the last step is (almost) pure noise. Lin et al. 2023, arXiv:2305.08891, alg. 1."""
    root = (1 / (sigmas.double() ** 2 + 1)).sqrt()
    root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    alpha_bar = root**2
    alpha_bar[-1] = TERMINAL_ALPHA_BAR
    return ((1 - alpha_bar) / alpha_bar).sqrt()
