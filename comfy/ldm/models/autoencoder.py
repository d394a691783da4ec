"""The image autoencoder of latent diffusion. Kingma and Welling 2013, arXiv:1312.6114; Rombach et al. 2022, arXiv:2112.10752."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

import comfy.ops
from comfy.ldm.modules.diffusionmodules.model import Decoder, Encoder, mean_of_moments

ops = comfy.ops.disable_weight_init


class AutoencodingEngine(nn.Module):
    """An encoder and a decoder, with 1×1 convolutions on the latent's side when `use_quant` is set (SD1, SD2, SDXL)."""

    def __init__(self, ddconfig: Mapping[str, Any], embed_dim: int, use_quant: bool, operations: Any = ops) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.encoder = Encoder(**ddconfig, operations=operations)
        self.decoder = Decoder(**ddconfig, operations=operations)
        self.quant_conv: nn.Module | None = None
        self.post_quant_conv: nn.Module | None = None
        if use_quant:
            z = ddconfig["z_channels"]
            self.quant_conv = operations.Conv2d(2 * z, 2 * embed_dim, 1)
            self.post_quant_conv = operations.Conv2d(embed_dim, z, 1)

    def encode(self, x: Tensor) -> Tensor:
        """(b, 3, height, width) in -1..1 -> (b, embed_dim, height/f, width/f), the mean of the latent's distribution"""
        moments = self.encoder(x)
        return mean_of_moments(moments if self.quant_conv is None else self.quant_conv(moments))

    def decode(self, z: Tensor, **kwargs: Any) -> Tensor:
        """(b, embed_dim, height, width) -> (b, 3, f·height, f·width), about -1..1"""
        return self.decoder(z if self.post_quant_conv is None else self.post_quant_conv(z))

    def forward(self, x: Tensor) -> Tensor:
        """A picture through both."""
        return self.decode(self.encode(x))


class AutoencoderKL(AutoencodingEngine):
    """The autoencoder with quant convolutions."""

    def __init__(self, ddconfig: Mapping[str, Any], embed_dim: int, use_quant: bool = True, operations: Any = ops) -> None:
        super().__init__(ddconfig, embed_dim, use_quant, operations)
