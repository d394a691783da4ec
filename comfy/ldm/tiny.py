"""A small autoencoder for previews and quick encoding: plain convolutions, no normalisation, no attention.

Boer Bohan 2023, github.com/madebyollin/taesd, its description of the network. The parameter names are those of its files:
a number for each layer of one sequence. Latents have the scale that the diffusion model works in; pictures are 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import comfy.ops

ops = comfy.ops.disable_weight_init

#: latents beyond this are squeezed together
LATENT_LIMIT = 3.0
RATIO = 8
LEVELS = 3


@dataclass(frozen=True)
class TinyConfig:
    """One half of the autoencoder: channels of the latent, and of the layers inside."""

    half: str  #: "encoder" or "decoder"
    z_channels: int
    ch: int


class Squeeze(nn.Module):
    """limit·tanh(x/limit)."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> like x"""
        return torch.tanh(x / LATENT_LIMIT) * LATENT_LIMIT


class Block(nn.Module):
    """Three convolutions with ReLU between them, added to the input, and a ReLU."""

    def __init__(self, channels: int, operations: Any = ops) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(3):
            layers += [operations.Conv2d(channels, channels, 3, padding=1)] + ([nn.ReLU()] if i < 2 else [])
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(b, channels, h, w) -> like x"""
        return torch.relu(self.conv(x) + x)


def tiny_decoder(z_channels: int, ch: int, operations: Any = ops) -> nn.Sequential:
    """(b, z_channels, h, w) -> (b, 3, 8 h, 8 w), about 0..1"""
    layers: list[nn.Module] = [Squeeze(), operations.Conv2d(z_channels, ch, 3, padding=1), nn.ReLU()]
    for _ in range(LEVELS):
        layers += [Block(ch, operations) for _ in range(3)]
        layers += [nn.Upsample(scale_factor=2), operations.Conv2d(ch, ch, 3, padding=1, bias=False)]
    return nn.Sequential(*layers, Block(ch, operations), operations.Conv2d(ch, 3, 3, padding=1))


def tiny_encoder(z_channels: int, ch: int, operations: Any = ops) -> nn.Sequential:
    """(b, 3, 8 h, 8 w) in 0..1 -> (b, z_channels, h, w)"""
    layers: list[nn.Module] = [operations.Conv2d(3, ch, 3, padding=1), Block(ch, operations)]
    for _ in range(LEVELS):
        layers += [operations.Conv2d(ch, ch, 3, padding=1, stride=2, bias=False)]
        layers += [Block(ch, operations) for _ in range(3)]
    return nn.Sequential(*layers, operations.Conv2d(ch, z_channels, 3, padding=1))


def build_tiny(config: TinyConfig) -> nn.Sequential:
    """The network of a configuration, on torch's current device."""
    return (tiny_decoder if config.half == "decoder" else tiny_encoder)(config.z_channels, config.ch)
