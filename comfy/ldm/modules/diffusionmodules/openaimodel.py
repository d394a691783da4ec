"""The SD-family UNet. Rombach et al. 2022, arXiv:2112.10752; Dhariwal and Nichol 2021, arXiv:2105.05233.

Parameter names and block numbers are those of the released SD1, SD2 and SDXL checkpoints (contract: models.md section 4).
Legend: b batch, c channels, e width of the time embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import comfy.ops
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.unet_blocks import Downsample, ResBlock, TimestepBlock, Upsample
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from comfy.replaceable import replaceable, write_through

__all__ = [
    "Downsample",
    "ResBlock",
    "TimestepBlock",
    "TimestepEmbedSequential",
    "UNetModel",
    "Upsample",
    "apply_control",
    "forward_timestep_embed",
    "timestep_embedding",
]

_HERE = "comfy.ldm.modules.diffusionmodules.openaimodel"
ops = comfy.ops.disable_weight_init


@replaceable(f"{_HERE}.forward_timestep_embed")
def forward_timestep_embed(
    ts: Any,
    x: Tensor,
    emb: Tensor,
    context: Tensor | None = None,
    transformer_options: Mapping[str, Any] | None = None,
    output_shape: Sequence[int] | None = None,
    time_context: Tensor | None = None,
    num_video_frames: int | None = None,
    image_only_indicator: Tensor | None = None,
) -> Tensor:
    """Run the layers of one numbered block in order, each with the inputs that its kind takes.

    ts            the layers, iterable
    x             (b, c, height, width)
    output_shape  shape whose height and width an Upsample is to reach
    The last three arguments belong to temporal layers and are ignored by the others.
    """
    for layer in ts:
        if isinstance(layer, TimestepBlock):
            x = layer(x, emb)
        elif isinstance(layer, SpatialTransformer):
            x = layer(x, context, transformer_options)
            if isinstance(transformer_options, dict) and "transformer_index" in transformer_options:
                transformer_options["transformer_index"] += 1  # packs tell the spatial transformers apart by it
        elif isinstance(layer, Upsample):
            x = layer(x, output_shape=output_shape)
        else:
            x = layer(x)
    return x


@replaceable(f"{_HERE}.apply_control")
def apply_control(h: Tensor, control: dict[str, list[Tensor | None]] | None, name: str) -> Tensor:
    """Take the last residual of the list `control[name]` off and add it to `h`; an absent list or residual adds nothing.

    A residual whose shape does not fit raises RuntimeError: the hint was made for another picture size.
    """
    if control is None or not control.get(name):
        return h
    residual = control[name].pop()
    return h if residual is None else h + residual.to(h.dtype)


class TimestepEmbedSequential(nn.Sequential, TimestepBlock):
    """The layers of one numbered block."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return forward_timestep_embed(self, *args, **kwargs)


class UNetModel(nn.Module):
    """Predicts the noise, or v, in a noisy latent.

    channel_mult              width of each level over model_channels
    num_res_blocks            residual blocks of each level
    transformer_depth         transformer blocks at each residual block of the way down, in order; 0 for none
    transformer_depth_middle  the same in the middle; -1: a residual block alone; -2: no middle
    transformer_depth_output  the same for the way up, last block first: from the outermost level to the innermost
    num_heads                 heads of each attention, or -1 to have num_head_channels channels in each
    adm_in_channels           width of the vector conditioning `y`; None for none
    """

    def __init__(
        self,
        in_channels: int,
        model_channels: int,
        out_channels: int,
        num_res_blocks: Sequence[int],
        channel_mult: Sequence[int],
        transformer_depth: Sequence[int],
        transformer_depth_middle: int,
        transformer_depth_output: Sequence[int],
        context_dim: int | None,
        num_heads: int = -1,
        num_head_channels: int = -1,
        use_linear_in_transformer: bool = False,
        adm_in_channels: int | None = None,
        attn_precision: torch.dtype | None = None,
        dropout: float = 0.0,
        dtype: Any = None,
        device: Any = None,
        operations: Any = ops,
    ) -> None:
        super().__init__()
        place: dict[str, Any] = {"dtype": dtype, "device": device, "operations": operations}
        self.in_channels = in_channels
        self.model_channels = model_channels
        self.out_channels = out_channels
        self.num_res_blocks = list(num_res_blocks)
        self.channel_mult = list(channel_mult)
        self.num_heads = num_heads
        self.num_head_channels = num_head_channels
        self.num_classes = None if adm_in_channels is None else "sequential"
        self.adm_in_channels = adm_in_channels
        self.dtype = dtype
        emb_channels = model_channels * 4

        def mlp(width: int) -> nn.Sequential:
            first = operations.Linear(width, emb_channels, dtype=dtype, device=device)
            return nn.Sequential(first, nn.SiLU(), operations.Linear(emb_channels, emb_channels, dtype=dtype, device=device))

        def residual(channels: int, out: int) -> ResBlock:
            return ResBlock(channels, emb_channels, dropout=dropout, out_channels=out, **place)

        def attention(channels: int, depth: int) -> SpatialTransformer:
            heads = num_heads if num_head_channels == -1 else channels // num_head_channels
            return SpatialTransformer(
                channels,
                heads,
                channels // heads,
                depth=depth,
                context_dim=context_dim,
                use_linear=use_linear_in_transformer,
                attn_precision=attn_precision,
                **place,
            )

        self.time_embed = mlp(model_channels)
        if adm_in_channels is not None:
            self.label_emb = nn.Sequential(mlp(adm_in_channels))

        first = operations.Conv2d(in_channels, model_channels, 3, padding=1, dtype=dtype, device=device)
        self.input_blocks = nn.ModuleList([TimestepEmbedSequential(first)])
        channels = model_channels
        skips = [channels]
        depths = list(transformer_depth)
        for level, (mult, count) in enumerate(zip(channel_mult, num_res_blocks)):
            for _ in range(count):
                layers: list[nn.Module] = [residual(channels, mult * model_channels)]
                channels = mult * model_channels
                if (depth := depths.pop(0)) > 0:
                    layers.append(attention(channels, depth))
                self.input_blocks.append(TimestepEmbedSequential(*layers))
                skips.append(channels)
            if level != len(channel_mult) - 1:
                self.input_blocks.append(TimestepEmbedSequential(Downsample(channels, **place)))
                skips.append(channels)

        self.middle_block = None
        if transformer_depth_middle >= -1:
            middle: list[nn.Module] = [residual(channels, channels)]
            if transformer_depth_middle >= 0:
                middle += [attention(channels, transformer_depth_middle), residual(channels, channels)]
            self.middle_block = TimestepEmbedSequential(*middle)

        self.output_blocks = nn.ModuleList()
        depths = list(transformer_depth_output)
        for level, (mult, count) in reversed(list(enumerate(zip(channel_mult, num_res_blocks)))):
            for i in range(count + 1):
                layers = [residual(channels + skips.pop(), mult * model_channels)]
                channels = mult * model_channels
                if (depth := depths.pop()) > 0:
                    layers.append(attention(channels, depth))
                if level and i == count:
                    layers.append(Upsample(channels, **place))
                self.output_blocks.append(TimestepEmbedSequential(*layers))

        self.out = nn.Sequential(
            operations.GroupNorm(32, channels, dtype=dtype, device=device),
            nn.SiLU(),
            operations.Conv2d(model_channels, out_channels, 3, padding=1, dtype=dtype, device=device),
        )

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        y: Tensor | None = None,
        control: Mapping[str, Sequence[Tensor | None]] | None = None,
        transformer_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """x (b, in_channels, height, width), timesteps (b,), context (b, s, context_dim), y (b, adm_in_channels)
        -> (b, out_channels, height, width).

        control  residuals by `output`, `middle`, `input` (contract: models.md section 4); the lists stay as they are
        transformer_options  patches and what they see; read only. Patches get `block` and `original_shape` in it.
        """
        if (y is None) != (self.adm_in_channels is None):
            raise ValueError("the model takes a vector conditioning" if y is None else "the model takes no vector conditioning")
        options = {**(transformer_options or {}), "original_shape": list(x.shape), "transformer_index": 0}
        patches = options.get("patches", {})
        residuals = None if control is None else {name: list(values) for name, values in control.items() if values is not None}
        extra = {name: kwargs.get(name) for name in ("time_context", "num_video_frames", "image_only_indicator")}

        emb = self.time_embed(timestep_embedding(timesteps, self.model_channels).to(x.dtype))
        for patch in patches.get("emb_patch", ()):
            emb = patch(emb, self.model_channels, options)
        if y is not None:
            emb = emb + self.label_emb(y.to(x.dtype))

        h = x
        skips: list[Tensor] = []
        for i, block in enumerate(self.input_blocks):
            options["block"] = ("input", i)
            h = apply_control(forward_timestep_embed(block, h, emb, context, options, **extra), residuals, "input")
            for patch in patches.get("input_block_patch", ()):
                h = patch(h, options)
            skips.append(h)
            for patch in patches.get("input_block_patch_after_skip", ()):
                h = patch(h, options)

        options["block"] = ("middle", 0)
        if self.middle_block is not None:
            h = forward_timestep_embed(self.middle_block, h, emb, context, options, **extra)
        h = apply_control(h, residuals, "middle")

        for i, block in enumerate(self.output_blocks):
            options["block"] = ("output", i)
            skip = apply_control(skips.pop(), residuals, "output")
            for patch in patches.get("output_block_patch", ()):
                h, skip = patch(h, skip, options)
            h = torch.cat([h, skip], dim=1)
            shape = skips[-1].shape if skips else None
            h = forward_timestep_embed(block, h, emb, context, options, shape, **extra)
        return self.out(h.to(x.dtype))


write_through(__name__)  # packs assign forward_timestep_embed and apply_control here
