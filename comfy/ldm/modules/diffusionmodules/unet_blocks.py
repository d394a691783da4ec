"""The layers that the SD-family UNet is built of: residual blocks and the steps between resolutions.

Dhariwal and Nichol 2021, arXiv:2105.05233, appendix A. Custom nodes import them from `openaimodel`.
Legend: b batch, c channels, e width of the time embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

import comfy.ops

ops = comfy.ops.disable_weight_init


class TimestepBlock(nn.Module):
    """A block whose forward also takes the time embedding: forward(x, emb)."""


class Upsample(nn.Module):
    """Nearest neighbour to twice the size, or to the size of `output_shape`, then a 3×3 convolution."""

    def __init__(
        self,
        channels: int,
        use_conv: bool = True,
        dims: int = 2,
        out_channels: int | None = None,
        padding: int = 1,
        dtype: Any = None,
        device: Any = None,
        operations: Any = ops,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.use_conv = use_conv
        if use_conv:
            self.conv = operations.conv_nd(dims, channels, out_channels or channels, 3, padding=padding, dtype=dtype, device=device)

    def forward(self, x: Tensor, output_shape: Sequence[int] | None = None) -> Tensor:
        """(b, c, height, width) -> (b, c_out, 2·height, 2·width), or the height and width of `output_shape`"""
        size = [2 * n for n in x.shape[2:]] if output_shape is None else list(output_shape[2:])
        x = F.interpolate(x, size=size, mode="nearest")
        return self.conv(x) if self.use_conv else x


class Downsample(nn.Module):
    """Half the size, by a convolution of stride 2 or by averaging."""

    def __init__(
        self,
        channels: int,
        use_conv: bool = True,
        dims: int = 2,
        out_channels: int | None = None,
        padding: int = 1,
        dtype: Any = None,
        device: Any = None,
        operations: Any = ops,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.use_conv = use_conv
        self.op: nn.Module
        if use_conv:
            out = out_channels or channels
            self.op = operations.conv_nd(dims, channels, out, 3, stride=2, padding=padding, dtype=dtype, device=device)
        else:
            self.op = nn.AvgPool2d(kernel_size=2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, height, width) -> (b, c_out, ⌈height/2⌉, ⌈width/2⌉)"""
        return self.op(x)


class ResBlock(TimestepBlock):
    """Two convolutions, each after GroupNorm and SiLU, the time embedding added between them; added to the input."""

    def __init__(
        self,
        channels: int,
        emb_channels: int,
        dropout: float = 0.0,
        out_channels: int | None = None,
        dtype: Any = None,
        device: Any = None,
        operations: Any = ops,
    ) -> None:
        super().__init__()
        place: dict[str, Any] = {"dtype": dtype, "device": device}
        self.channels = channels
        self.out_channels = out = out_channels or channels
        self.in_layers = nn.Sequential(
            operations.GroupNorm(32, channels, **place), nn.SiLU(), operations.Conv2d(channels, out, 3, padding=1, **place)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), operations.Linear(emb_channels, out, **place))
        self.out_layers = nn.Sequential(
            operations.GroupNorm(32, out, **place), nn.SiLU(), nn.Dropout(dropout), operations.Conv2d(out, out, 3, padding=1, **place)
        )
        self.skip_connection = nn.Identity() if out == channels else operations.Conv2d(channels, out, 1, **place)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x (b, c, height, width), emb (b, e) -> (b, c_out, height, width)"""
        h = self.in_layers(x)
        h = h + self.emb_layers(emb).to(h.dtype)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)
