"""How each family's latents relate to those that nodes hand around, and how to see them as a rough picture.

Facts: contract, models.md section 5 and goldens README section F; the long tables lie in comfy/data/latent_formats.json.
process_in(z) = (z - shift)·scale, or (z - mean)·scale/std by channel; process_out is the inverse.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

_TABLES: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "data" / "latent_formats.json").read_text(encoding="utf-8"))


class LatentFormat:
    """The identity, and the base of the others.

    latent_channels, latent_dimensions  channels and further axes: 1 sound, 2 picture, 3 video
    latent_rgb_factors                  [channels][3]: a channel's share of red, green, blue, or None; _bias is added
    taesd_decoder_name                  file stem of the small decoder for previews
    """

    latent_channels: ClassVar[int] = 4
    latent_dimensions: ClassVar[int] = 2
    scale_factor: float = 1.0
    shift_factor: float = 0.0
    latents_mean: list[float] | None = None
    latents_std: list[float] | None = None
    latent_rgb_factors: list[list[float]] | None = None
    latent_rgb_factors_bias: list[float] | None = None
    taesd_decoder_name: str | None = None

    def __init_subclass__(cls) -> None:
        table = _TABLES.get(cls.__name__, {})
        cls.latent_rgb_factors = table.get("rgb", cls.__dict__.get("latent_rgb_factors"))
        cls.latent_rgb_factors_bias = table.get("rgb_bias")
        cls.latents_mean, cls.latents_std = table.get("mean"), table.get("std")

    def process_in(self, latent: Tensor) -> Tensor:
        """(b, latent_channels, …) as nodes have it -> the model's scale"""
        if self.latents_mean is None:
            return (latent - self.shift_factor) * self.scale_factor if self.shift_factor else latent * self.scale_factor
        mean, std = self._statistics(latent)
        return (latent - mean) * self.scale_factor / std

    def process_out(self, latent: Tensor) -> Tensor:
        """The inverse of `process_in`."""
        if self.latents_mean is None:
            out = latent / self.scale_factor
            return out + self.shift_factor if self.shift_factor else out
        mean, std = self._statistics(latent)
        return latent * std / self.scale_factor + mean

    def _statistics(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        shape = (1, -1, *[1] * (latent.ndim - 2))
        mean, std = (torch.tensor(v, dtype=latent.dtype, device=latent.device) for v in (self.latents_mean, self.latents_std))
        return mean.view(shape), std.view(shape)


class SD15(LatentFormat):
    taesd_decoder_name = "taesd_decoder"

    def __init__(self, scale_factor: float = 0.18215) -> None:
        self.scale_factor = scale_factor


class SDXL(LatentFormat):
    scale_factor = 0.13025
    taesd_decoder_name = "taesdxl_decoder"


class SDXL_Playground_2_5(LatentFormat):
    scale_factor = 0.5
    taesd_decoder_name = "taesdxl_decoder"


class SD_X4(LatentFormat):
    scale_factor = 0.08333


class SC_Prior(LatentFormat):
    latent_channels = 16


class SC_B(LatentFormat):
    scale_factor = 1.0 / 0.43


class SD3(LatentFormat):
    latent_channels = 16
    scale_factor, shift_factor = 1.5305, 0.0609
    taesd_decoder_name = "taesd3_decoder"


class Flux(SD3):
    scale_factor, shift_factor = 0.3611, 0.1159
    taesd_decoder_name = "taef1_decoder"


class StableAudio1(LatentFormat):
    latent_channels, latent_dimensions = 64, 1


class Mochi(LatentFormat):
    latent_channels, latent_dimensions = 12, 3


class LTXV(LatentFormat):
    latent_channels, latent_dimensions = 128, 3


class HunyuanVideo(LatentFormat):
    latent_channels, latent_dimensions = 16, 3
    scale_factor = 0.476986


class Cosmos1CV8x8x8(LatentFormat):
    latent_channels, latent_dimensions = 16, 3


class Wan21(LatentFormat):
    latent_channels, latent_dimensions = 16, 3


class Wan22(Wan21):
    latent_channels = 48


class HunyuanImage21(LatentFormat):
    latent_channels = 64
    scale_factor = 0.75289


class HunyuanImage21Refiner(LatentFormat):
    latent_channels, latent_dimensions = 64, 3
    scale_factor = 1.03682


class Hunyuan3Dv2(LatentFormat):
    latent_channels, latent_dimensions = 64, 1
    scale_factor = 0.9990943042622529


class Hunyuan3Dv2_1(Hunyuan3Dv2):
    scale_factor = 1.0039506158752403


class Hunyuan3Dv2mini(Hunyuan3Dv2):
    scale_factor = 1.0188137142395404


class ACEAudio(LatentFormat):
    latent_channels = 8


class ChromaRadiance(LatentFormat):
    """Pixels: the model works on the picture itself."""

    latent_channels = 3
    latent_rgb_factors = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
