"""The analytic denoiser of goldens B.1, the analytic network of D.4, and a MODEL handle around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from comfy.sampling import extension
from comfy.sampling.conds import CONDCrossAttn, CONDNoiseShape
from comfy.sampling.prediction import CONST
from tests.unit.sampling.kinds import sampling_type


def pattern(like: Tensor) -> Tensor:
    """P[c, i, j] of B.1, its origin in the corner of the tensor itself."""
    c, h, w = like.shape[1:]
    phase = 0.7 * (torch.arange(c, dtype=torch.float64) + 1)[:, None, None]
    phase = phase + 0.3 * torch.arange(h, dtype=torch.float64)[:, None] - 0.2 * torch.arange(w, dtype=torch.float64)
    return phase.cos().float()


def column(values: Tensor) -> Tensor:
    return values.reshape(-1, 1, 1, 1)


class LatentFormat:
    """Scale of SD1.5, or none."""

    def __init__(self, scale: float = 1.0, channels: int = 4, dimensions: int = 2) -> None:
        self.scale_factor, self.latent_channels, self.latent_dimensions = scale, channels, dimensions

    def process_in(self, latent: Tensor) -> Tensor:
        return latent * self.scale_factor

    def process_out(self, latent: Tensor) -> Tensor:
        return latent / self.scale_factor


class AnalyticModel:
    """A SamplingModel whose denoiser is B.1. Logs what it is asked: (x of the first rows, sigma, sides)."""

    def __init__(self, kind: str, latent_format: Any = None, extra: Callable[..., dict[str, Any]] | None = None) -> None:
        self.model_sampling = sampling_type({"eps": "sd15_eps", "flow": "sd3_shift3"}.get(kind, kind))
        self.latent_format = latent_format or LatentFormat()
        self.extra = extra
        self.calls: list[Tensor] = []
        self.sigmas: list[float] = []
        self.sides: list[list[int]] = []
        self.rows: list[int] = []
        self.concats: list[Tensor] = []

    def process_latent_in(self, latent: Tensor) -> Tensor:
        return self.latent_format.process_in(latent)

    def process_latent_out(self, latent: Tensor) -> Tensor:
        return self.latent_format.process_out(latent)

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        conds = {"c_crossattn": CONDCrossAttn(kwargs["cross_attn"])}
        if self.extra is not None:
            conds.update({name: CONDNoiseShape(value) for name, value in self.extra(**kwargs).items()})
        return conds

    def apply_model(
        self,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        transformer_options: Any = None,
        **kwargs: Any,
    ) -> Tensor:
        sides = transformer_options["cond_or_uncond"]
        self.calls.append(x[: len(x) // len(sides)].clone())
        self.sigmas.append(float(t[0]))
        self.sides.append(sides)
        self.rows.append(len(x))
        if c_concat is not None:
            self.concats.append(c_concat.clone())
        assert c_crossattn is not None
        return self.denoise(x, column(t), column(c_crossattn.mean(dim=(1, 2))))

    def denoise(self, x: Tensor, sigma: Tensor, m: Tensor) -> Tensor:
        if isinstance(self.model_sampling, CONST):
            a = (1 - sigma) / ((1 - sigma) ** 2 + sigma**2)
            return a * x + (1 - a * (1 - sigma)) * m * pattern(x) + 0.25 * sigma * torch.sin(x + m / 2)
        s2 = 1 / (1 + sigma**2)
        r = s2**0.5
        return s2 * x + (1 - s2) * m * pattern(x) + 0.25 * sigma * r * torch.sin(r * x + m / 2)


class NetworkModel(AnalyticModel):
    """A SamplingModel whose network is D.4, behind the parameterization. Logs network inputs and timesteps."""

    def __init__(self, model_sampling: Any, latent_format: Any) -> None:
        super().__init__("eps", latent_format)
        self.model_sampling = model_sampling
        self.timesteps: list[float] = []

    def denoise(self, x: Tensor, sigma: Tensor, m: Tensor) -> Tensor:
        sigma = sigma.reshape(-1)
        t = self.model_sampling.timestep(sigma).float()
        network_input = self.model_sampling.calculate_input(sigma, x)
        self.calls[-1] = network_input[:1].clone()
        self.timesteps.append(float(t[0]))
        output = 0.3 * network_input + 0.5 * torch.sin(network_input + 0.01 * column(t)) - 0.4 * m * pattern(x)
        return self.model_sampling.calculate_denoised(sigma, output, x)


class Handle:
    """A MODEL around one of the models above."""

    def __init__(self, model: Any, model_options: dict[str, Any] | None = None) -> None:
        self.model = model
        self.model_options: dict[str, Any] = model_options or {"transformer_options": {}}
        self.load_device = torch.device("cpu")

    def get_model_object(self, name: str) -> Any:
        return getattr(self.model, name)

    def add_object_patch(self, name: str, value: Any) -> None:
        setattr(self.model, name, value)

    def clone(self) -> Handle:
        return Handle(self.model, extension.copy_nested_dicts(self.model_options))

    def set_model_sampler_cfg_function(self, function: Any, disable_cfg1_optimization: bool = False) -> None:
        self._option("sampler_cfg_function", function, disable_cfg1_optimization)

    def set_model_sampler_post_cfg_function(self, function: Any, disable_cfg1_optimization: bool = False) -> None:
        self._option(
            "sampler_post_cfg_function", [*self.model_options.get("sampler_post_cfg_function", []), function], disable_cfg1_optimization
        )

    def set_model_sampler_pre_cfg_function(self, function: Any, disable_cfg1_optimization: bool = False) -> None:
        self._option(
            "sampler_pre_cfg_function", [*self.model_options.get("sampler_pre_cfg_function", []), function], disable_cfg1_optimization
        )

    def set_model_denoise_mask_function(self, function: Any) -> None:
        self._option("denoise_mask_function", function)

    def _option(self, name: str, value: Any, disable_cfg1_optimization: bool = False) -> None:
        self.model_options[name] = value
        if disable_cfg1_optimization:
            self.model_options["disable_cfg1_optimization"] = True
