"""Encoder and decoder of the image autoencoder. Rombach et al. 2022, arXiv:2112.10752, section 3.1 and appendix G.

Parameter names are those of the released checkpoints. Legend: b batch, c channels; sizes are pixels or latent cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import comfy.ops
from comfy.ldm.modules.attention import optimized_attention

ops = comfy.ops.disable_weight_init


def Normalize(in_channels: int, num_groups: int = 32, operations: Any = ops) -> nn.Module:
    """The autoencoder's GroupNorm, with eps 1e-6."""
    return operations.GroupNorm(num_groups=num_groups, num_channels=in_channels, eps=1e-6, affine=True)


class Upsample(nn.Module):
    """Nearest neighbour to twice the size, then a 3×3 convolution."""

    def __init__(self, in_channels: int, operations: Any = ops) -> None:
        super().__init__()
        self.conv = operations.Conv2d(in_channels, in_channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, height, width) -> (b, c, 2·height, 2·width)"""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Downsample(nn.Module):
    """A 3×3 convolution of stride 2 over the input padded by one at the right and at the bottom only."""

    def __init__(self, in_channels: int, operations: Any = ops) -> None:
        super().__init__()
        self.conv = operations.Conv2d(in_channels, in_channels, kernel_size=3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, height, width) -> (b, c, ⌊height/2⌋, ⌊width/2⌋)"""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class ResnetBlock(nn.Module):
    """Two convolutions, each after GroupNorm and SiLU; added to the input."""

    def __init__(self, in_channels: int, out_channels: int, operations: Any = ops) -> None:
        super().__init__()
        self.norm1 = Normalize(in_channels, operations=operations)
        self.conv1 = operations.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.norm2 = Normalize(out_channels, operations=operations)
        self.conv2 = operations.Conv2d(out_channels, out_channels, kernel_size=3, padding=1)
        self.nin_shortcut = None
        if in_channels != out_channels:
            self.nin_shortcut = operations.Conv2d(in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, height, width) -> (b, c_out, height, width)"""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return (x if self.nin_shortcut is None else self.nin_shortcut(x)) + h


class AttnBlock(nn.Module):
    """Self-attention with one head over the cells of a feature map, added to it."""

    def __init__(self, in_channels: int, operations: Any = ops) -> None:
        super().__init__()
        self.norm = Normalize(in_channels, operations=operations)
        self.q = operations.Conv2d(in_channels, in_channels, kernel_size=1)
        self.k = operations.Conv2d(in_channels, in_channels, kernel_size=1)
        self.v = operations.Conv2d(in_channels, in_channels, kernel_size=1)
        self.proj_out = operations.Conv2d(in_channels, in_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, height, width) -> the same"""
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).transpose(1, 2).contiguous() for layer in (self.q, self.k, self.v))
        out_blc = optimized_attention(q, k, v, heads=1)
        return x + self.proj_out(out_blc.transpose(1, 2).reshape(x.shape))


class _Middle(nn.Module):
    def __init__(self, channels: int, operations: Any) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, operations)
        self.attn_1 = AttnBlock(channels, operations)
        self.block_2 = ResnetBlock(channels, channels, operations)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class _Level(nn.Module):
    """The residual blocks of one resolution, and the step to the next one."""

    def __init__(self, channels: Sequence[int], step: tuple[str, nn.Module] | None, operations: Any) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(a, b, operations) for a, b in pairwise(channels))
        self.step_name = None if step is None else step[0]
        if step is not None:
            self.add_module(*step)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        return x if self.step_name is None else getattr(self, self.step_name)(x)


class Encoder(nn.Module):
    """Picture -> moments of its latent.

    ch, ch_mult, num_res_blocks  width of the first level, of each level over it, blocks in each
    z_channels, double_z         channels of the latent; twice that come out, mean and log variance, with `double_z`
    """

    def __init__(
        self,
        *,
        ch: int,
        ch_mult: Sequence[int],
        num_res_blocks: int,
        in_channels: int,
        z_channels: int,
        double_z: bool = True,
        operations: Any = ops,
        **ignored: Any,
    ) -> None:
        super().__init__()
        self.conv_in = operations.Conv2d(in_channels, ch, kernel_size=3, padding=1)
        self.down = nn.ModuleList()
        channels = ch
        for level, mult in enumerate(ch_mult):
            widths = [channels] + [ch * mult] * num_res_blocks
            channels = ch * mult
            last = level == len(ch_mult) - 1
            self.down.append(_Level(widths, None if last else ("downsample", Downsample(channels, operations)), operations))
        self.mid = _Middle(channels, operations)
        self.norm_out = Normalize(channels, operations=operations)
        self.conv_out = operations.Conv2d(channels, z_channels * (2 if double_z else 1), kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, in_channels, height, width) in -1..1 -> (b, 2·z_channels, height/f, width/f)"""
        h = self.conv_in(x)
        for level in self.down:
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(self.mid(h))))


class Decoder(nn.Module):
    """Latent -> picture. Arguments as for `Encoder`."""

    def __init__(
        self,
        *,
        ch: int,
        out_ch: int,
        ch_mult: Sequence[int],
        num_res_blocks: int,
        z_channels: int,
        operations: Any = ops,
        **ignored: Any,
    ) -> None:
        super().__init__()
        channels = ch * ch_mult[-1]
        self.conv_in = operations.Conv2d(z_channels, channels, kernel_size=3, padding=1)
        self.mid = _Middle(channels, operations)
        levels: list[nn.Module] = []
        for level, mult in reversed(list(enumerate(ch_mult))):
            widths = [channels] + [ch * mult] * (num_res_blocks + 1)
            channels = ch * mult
            levels.insert(0, _Level(widths, ("upsample", Upsample(channels, operations)) if level else None, operations))
        self.up = nn.ModuleList(levels)
        self.norm_out = Normalize(channels, operations=operations)
        self.conv_out = operations.Conv2d(channels, out_ch, kernel_size=3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """(b, z_channels, height, width) -> (b, out_ch, f·height, f·width), about -1..1"""
        h = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(h)))


def mean_of_moments(moments: Tensor) -> Tensor:
    """(b, 2·z, …) -> (b, z, …): the mean of the latent's distribution, which is what encoding returns."""
    return torch.chunk(moments, 2, dim=1)[0]
