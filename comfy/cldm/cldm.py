"""The ControlNet of the SD-family UNet. Zhang et al. 2023, arXiv:2302.05543, section 3.

A copy of the UNet's way down and middle that also sees a hint, a picture of 8 times the latent's sides; 1×1 convolutions
that start at zero carry its features over. Parameter names are those of the released files (contract: models.md section 8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

import comfy.ops
from comfy.ldm.modules.diffusionmodules.openaimodel import TimestepEmbedSequential, UNetModel, timestep_embedding

ops = comfy.ops.disable_weight_init

#: channels of the hint's convolutions; every second one but the first halves the sides
HINT_CHANNELS = (16, 16, 32, 32, 96, 96, 256)


class ControlNet(nn.Module):
    """Hint, noisy latent, prompt -> what is added to the UNet's skip tensors.

    unet           arguments of the UNetModel that it is a copy of
    hint_channels  channels of the hint: 3 for a picture
    """

    def __init__(
        self, unet: Mapping[str, Any], hint_channels: int = 3, hint_widths: Sequence[int] = HINT_CHANNELS, operations: Any = ops
    ) -> None:
        super().__init__()
        whole = UNetModel(**{**unet, "operations": operations})
        self.model_channels = whole.model_channels
        self.adm_in_channels = whole.adm_in_channels
        self.time_embed = whole.time_embed
        if whole.adm_in_channels is not None:
            self.label_emb = whole.label_emb
        self.input_blocks = whole.input_blocks
        self.middle_block = whole.middle_block
        if self.middle_block is None:
            raise ValueError("a ControlNet needs a UNet with a middle block")
        widths = _widths(whole)
        self.zero_convs = nn.ModuleList(TimestepEmbedSequential(operations.Conv2d(n, n, 1)) for n in widths)
        self.middle_block_out = TimestepEmbedSequential(operations.Conv2d(widths[-1], widths[-1], 1))
        self.input_hint_block = _hint_block(hint_channels, hint_widths, self.model_channels, operations)

    def forward(
        self, x: Tensor, hint: Tensor, timesteps: Tensor, context: Tensor, y: Tensor | None = None, **kwargs: Any
    ) -> dict[str, list[Tensor]]:
        """x (b, c, h, w), hint (b, 3, 8h, 8w) in 0..1, timesteps (b,), context (b, s, d)
        -> residuals: `output`, one for each skip tensor in the order of the way down, and `middle`.

        Raises ValueError for a hint whose sides are not 8 times the latent's.
        """
        if hint.shape[2] != 8 * x.shape[2] or hint.shape[3] != 8 * x.shape[3]:
            raise ValueError(f"a hint of {hint.shape[3]}×{hint.shape[2]} does not fit a latent of {x.shape[3]}×{x.shape[2]}")
        emb = self.time_embed(timestep_embedding(timesteps, self.model_channels).to(x.dtype))
        if y is not None and self.adm_in_channels is not None:
            emb = emb + self.label_emb(y.to(x.dtype))
        guide: Tensor | None = self.input_hint_block(hint.to(x.dtype), emb, context)
        residuals = []
        h = x
        for block, zero_conv in zip(self.input_blocks, self.zero_convs):
            h = block(h, emb, context)
            if guide is not None:
                h, guide = h + guide, None
            residuals.append(zero_conv(h, emb, context))
        assert self.middle_block is not None
        h = self.middle_block(h, emb, context)
        return {"output": residuals, "middle": [self.middle_block_out(h, emb, context)]}


def _widths(unet: UNetModel) -> list[int]:
    """Channels after each numbered block of the way down."""
    widths = [unet.model_channels]
    for level, (mult, count) in enumerate(zip(unet.channel_mult, unet.num_res_blocks)):
        widths += [mult * unet.model_channels] * count
        if level != len(unet.channel_mult) - 1:
            widths.append(widths[-1])
    return widths


def _hint_block(hint_channels: int, widths: Sequence[int], model_channels: int, operations: Any) -> TimestepEmbedSequential:
    """Convolutions with SiLU between them, down to an eighth of the hint's sides."""
    layers: list[nn.Module] = []
    channels = hint_channels
    for i, width in enumerate(widths):
        halve = i > 0 and i % 2 == 0
        layers += [operations.Conv2d(channels, width, 3, padding=1, stride=2 if halve else 1), nn.SiLU()]
        channels = width
    layers.append(operations.Conv2d(channels, model_channels, 3, padding=1))
    return TimestepEmbedSequential(*layers)
