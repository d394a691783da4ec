"""T2I adapters of SD1: a picture's features, added to the UNet's way down. Mou et al. 2023, arXiv:2302.08453, section 3.2.

Parameter names are those of the published files. Legend: b batch, c channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

import comfy.ops

ops = comfy.ops.disable_weight_init

#: the picture's side is first divided by this, its pixels put into channels
UNSHUFFLE = 8


@dataclass(frozen=True)
class AdapterConfig:
    """light: the smaller kind; channels: of the picture; widths: of each level; blocks: residual blocks of each level;
    kernel: side of a block's second convolution; inner: width inside a level of the smaller kind.
    """

    light: bool
    channels: int
    widths: tuple[int, ...]
    blocks: int
    kernel: int = 1
    inner: tuple[int, ...] = ()

    def build(self) -> nn.Module:
        """The network, on torch's current device."""
        return AdapterLight(self) if self.light else Adapter(self)


class _Block(nn.Module):
    def __init__(self, inside: int, out: int, down: bool, kernel: int, operations: Any) -> None:
        super().__init__()
        self.down = down
        self.in_conv = operations.Conv2d(inside, out, kernel, padding=kernel // 2) if inside != out else nn.Identity()
        self.block1 = operations.Conv2d(out, out, 3, padding=1)
        self.block2 = operations.Conv2d(out, out, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.in_conv(_halved(x) if self.down else x)
        return self.block2(F.relu(self.block1(x))) + x


class Adapter(nn.Module):
    """The larger kind: residual blocks, the levels after the first half the size of the one before."""

    def __init__(self, config: AdapterConfig, operations: Any = ops) -> None:
        super().__init__()
        self.blocks = config.blocks
        self.conv_in = operations.Conv2d(config.channels * UNSHUFFLE**2, config.widths[0], 3, padding=1)
        layers, before = [], config.widths[0]
        for level, width in enumerate(config.widths):
            for block in range(config.blocks):
                layers.append(_Block(before, width, level > 0 and block == 0, config.kernel, operations))
                before = width
        self.body = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(b, channels, h, w) in 0..1 -> a feature map for each level, (b, width, h/8, w/8) first."""
        x, found = self.conv_in(F.pixel_unshuffle(x, UNSHUFFLE)), []
        for i, block in enumerate(self.body):
            x = block(x)
            if (i + 1) % self.blocks == 0:
                found.append(x)
        return found


class _LightBlock(nn.Module):
    def __init__(self, width: int, operations: Any) -> None:
        super().__init__()
        self.block1 = operations.Conv2d(width, width, 3, padding=1)
        self.block2 = operations.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.block2(F.relu(self.block1(x))) + x


class _LightLevel(nn.Module):
    def __init__(self, inside: int, inner: int, out: int, blocks: int, down: bool, operations: Any) -> None:
        super().__init__()
        self.down = down
        self.in_conv = operations.Conv2d(inside, inner, 1)
        self.body = nn.Sequential(*(_LightBlock(inner, operations) for _ in range(blocks)))
        self.out_conv = operations.Conv2d(inner, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_conv(self.body(self.in_conv(_halved(x) if self.down else x)))


class AdapterLight(nn.Module):
    """The smaller kind: narrow blocks between two 1×1 convolutions in each level."""

    def __init__(self, config: AdapterConfig, operations: Any = ops) -> None:
        super().__init__()
        insides = (config.channels * UNSHUFFLE**2, *config.widths[:-1])
        self.body = nn.ModuleList(
            _LightLevel(inside, inner, out, config.blocks, level > 0, operations)
            for level, (inside, inner, out) in enumerate(zip(insides, config.inner, config.widths))
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """As `Adapter.forward`."""
        x, found = F.pixel_unshuffle(x, UNSHUFFLE), []
        for level in self.body:
            x = level(x)
            found.append(x)
        return found


def _halved(x: Tensor) -> Tensor:
    """Half the size, an odd side rounded up as the UNet rounds it."""
    return F.avg_pool2d(x, 2, ceil_mode=True)
