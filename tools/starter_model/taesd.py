"""The small preview decoder in the layout of TAESD files: latents of the UNet's scale -> pictures in 0..1."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH = 32


class _Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        convs = [nn.Conv2d(width, width, 3, padding=1) for _ in range(3)]
        self.conv = nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2])

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + x)


def decoder(width: int = WIDTH) -> nn.Sequential:
    """(b, 4, h, w) -> (b, 3, 8h, 8w); place and kind of each layer are those that TAESD's file keys name."""
    layers: list[nn.Module] = [_Clamp(), nn.Conv2d(4, width, 3, padding=1), nn.ReLU()]
    for _ in range(3):
        layers += [_Block(width), _Block(width), _Block(width), nn.Upsample(scale_factor=2)]
        layers += [nn.Conv2d(width, width, 3, padding=1, bias=False)]
    return nn.Sequential(*layers, _Block(width), nn.Conv2d(width, 3, 3, padding=1))
