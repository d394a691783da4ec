"""Networks that enlarge pictures: RRDB and the compact one.

Wang et al. 2018, arXiv:1809.00219 (ESRGAN, figure 4); Wang et al. 2021, arXiv:2107.10833 (Real-ESRGAN, section 3.3 and its
released compact models). Parameter names are those of the Real-ESRGAN files. Legend: b batch, c channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import comfy.ops

ops = comfy.ops.disable_weight_init

SLOPE = 0.2
RESIDUAL = 0.2


@dataclass(frozen=True)
class UpscaleConfig:
    """Structure of one network.

    kind       "rrdb" or "compact"
    features   width inside; growth: channels that each layer of a dense block adds
    blocks     RRDB blocks, or convolutions between the first and the last of a compact network
    doublings  how often an RRDB network doubles the size; scale: what that makes of a picture's side in the end
    unshuffle  the picture's side is first divided by this, and its pixels put into channels
    """

    kind: str
    in_channels: int
    out_channels: int
    features: int
    blocks: int
    scale: int
    growth: int = 0
    doublings: int = 0
    unshuffle: int = 1


class DenseBlock(nn.Module):
    """Five convolutions, each over everything before it; a fifth of the last one is added to the input."""

    def __init__(self, features: int, growth: int, operations: Any = ops) -> None:
        super().__init__()
        for i in range(1, 6):
            self.add_module(f"conv{i}", operations.Conv2d(features + (i - 1) * growth, features if i == 5 else growth, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """(b, features, h, w) -> like x"""
        *convs, last = self.children()
        seen = [x]
        for conv in convs:
            seen.append(F.leaky_relu(conv(torch.cat(seen, dim=1)), SLOPE))
        made: Tensor = last(torch.cat(seen, dim=1))
        return made * RESIDUAL + x


class RRDB(nn.Module):
    """Three dense blocks; a fifth of them is added to the input."""

    def __init__(self, features: int, growth: int, operations: Any = ops) -> None:
        super().__init__()
        for i in range(1, 4):
            self.add_module(f"rdb{i}", DenseBlock(features, growth, operations))

    def forward(self, x: Tensor) -> Tensor:
        """(b, features, h, w) -> like x"""
        inner = x
        for dense in self.children():
            inner = dense(inner)
        return inner * RESIDUAL + x


class RRDBNet(nn.Module):
    """Dense blocks at the input's size, then nearest-neighbour doublings with a convolution each."""

    def __init__(self, config: UpscaleConfig, operations: Any = ops) -> None:
        super().__init__()
        features = config.features

        def conv(inside: int, out: int) -> nn.Module:
            made: nn.Module = operations.Conv2d(inside, out, 3, padding=1)
            return made

        self.unshuffle, self.doublings = config.unshuffle, config.doublings
        self.conv_first = conv(config.in_channels * config.unshuffle**2, features)
        self.body = nn.Sequential(*(RRDB(features, config.growth, operations) for _ in range(config.blocks)))
        self.conv_body = conv(features, features)
        for i in range(1, config.doublings + 1):
            setattr(self, f"conv_up{i}", conv(features, features))
        self.conv_hr = conv(features, features)
        self.conv_last = conv(features, config.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(b, in_channels, h, w) in 0..1 -> (b, out_channels, scale h, scale w), about 0..1"""
        height, width = x.shape[-2:]
        if self.unshuffle > 1:
            x = F.pixel_unshuffle(_padded(x, self.unshuffle), self.unshuffle)
        first = self.conv_first(x)
        h: Tensor = first + self.conv_body(self.body(first))
        for i in range(1, self.doublings + 1):
            h = F.leaky_relu(getattr(self, f"conv_up{i}")(F.interpolate(h, scale_factor=2, mode="nearest")), SLOPE)
        made: Tensor = self.conv_last(F.leaky_relu(self.conv_hr(h), SLOPE))
        scale = 2**self.doublings // self.unshuffle
        return made[..., : height * scale, : width * scale]


class Compact(nn.Module):
    """Convolutions with PReLU at the input's size, pixels out of channels at the end, added to the enlarged input."""

    def __init__(self, config: UpscaleConfig, operations: Any = ops) -> None:
        super().__init__()
        self.scale = config.scale
        widths = [config.in_channels] + [config.features] * (config.blocks + 1)
        layers: list[nn.Module] = []
        for inside, out in pairwise(widths):
            layers += [operations.Conv2d(inside, out, 3, padding=1), nn.PReLU(out)]
        self.body = nn.Sequential(*layers, operations.Conv2d(config.features, config.out_channels * config.scale**2, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) in 0..1 -> (b, c, scale h, scale w), about 0..1"""
        return F.pixel_shuffle(self.body(x), self.scale) + F.interpolate(x, scale_factor=self.scale, mode="nearest")


def build_upscaler(config: UpscaleConfig) -> nn.Module:
    """The network of a configuration, on torch's current device."""
    return RRDBNet(config) if config.kind == "rrdb" else Compact(config)


def _padded(x: Tensor, multiple: int) -> Tensor:
    """Right and bottom filled up to whole multiples with the border's own pixels."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")
