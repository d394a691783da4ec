"""Names and shapes of a file's tensors -> family and structure. Contract: models.md sections 2 to 4, 6 and 7.

By structure, not by width: a file with SD1's layout is SD1 at any number of channels. Nothing here reads a tensor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

import torch

from comfy.errors import ModelUnknown, WeightFileInvalid
from comfy.models.diffusers_names import vae_names
from comfy.models.family import FAMILIES, SD1, SD2, SDXL, SDXL_REFINER, SMALL_SDXL, Family, UNetConfig, VaeConfig
from comfy.models.layouts import OPENCLIP_MARK, run_time_shapes
from comfy.text_encoders.clip_text import ClipTextConfig

#: where the diffusion model of an all-in-one file may lie
UNET_PREFIXES = ("model.diffusion_model.", "model.model.", "net.")
GROUPS = 32
#: what sizes, crops and scores take of the vector conditioning; the pooled state takes the rest
SDXL_SIZES, REFINER_SIZES = 6 * 256, 5 * 256
#: OpenCLIP-H: some files leave out the last of its layers, which is not used
CLIP_H_WIDTH, CLIP_H_LAYERS = 1024, 24


@dataclass(frozen=True)
class Shapes:
    """Tensor shapes of one file by name, and the file's name for errors."""

    file_name: str
    shapes: Mapping[str, tuple[int, ...]]

    def under(self, prefix: str) -> Shapes:
        """Those whose names begin with `prefix`, without it."""
        return Shapes(self.file_name, {name[len(prefix) :]: shape for name, shape in self.shapes.items() if name.startswith(prefix)})

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def shape(self, name: str, dims: int) -> tuple[int, ...]:
        """The shape of a tensor that must be there with `dims` axes, none of them empty. Raises WeightFileInvalid."""
        if name not in self.shapes:
            raise WeightFileInvalid("A tensor is missing.", file=self.file_name, tensor=name)
        shape = self.shapes[name]
        if len(shape) != dims or 0 in shape:
            raise WeightFileInvalid(
                "A tensor has a shape that no model has.", file=self.file_name, tensor=name, shape=list(shape), dims=dims
            )
        return shape

    def count(self, pattern: str) -> int:
        """How many of `pattern` (with one {}) have tensors, counted up from 0 without a gap."""
        heads = {name[: name.find(".", len(pattern.split("{}")[0])) + 1] for name in self.shapes if name.startswith(pattern.split("{}")[0])}
        number = 0
        while pattern.format(number) in heads:
            number += 1
        return number

    def has_under(self, prefix: str) -> bool:
        """Whether any name begins with `prefix`."""
        return any(name.startswith(prefix) for name in self.shapes)

    def refuse(self, what: str) -> NoReturn:
        """Raise ModelUnknown with a summary of the names."""
        groups = Counter(".".join(name.split(".")[:2]) for name in self.shapes)
        seen = dict(groups.most_common(12))
        raise ModelUnknown(what, file=self.file_name, tensors=len(self.shapes), seen=seen)


def unet_prefix(names: Shapes) -> str:
    """Where the diffusion model lies: the prefix with most tensors, `model.` when none has more than 5, "" when that has none."""
    counts = Counter({prefix: sum(name.startswith(prefix) for name in names.shapes) for prefix in UNET_PREFIXES})
    best, number = counts.most_common(1)[0]
    if number > 5:
        return best
    return "model." if names.has_under("model.") else ""


def detect_family(names: Shapes) -> tuple[Family, UNetConfig]:
    """The family and structure of a diffusion model whose prefix is already off. Raises ModelUnknown or WeightFileInvalid."""
    if "input_blocks.0.0.weight" not in names:
        names.refuse("could not detect model type: there is no UNet of the SD family in it.")
    if any("time_stack" in name or "time_mix_blocks" in name for name in names.shapes):
        names.refuse("It is a video model of the SVD kind.")
    config = unet_config(names)
    if config.in_channels not in (4, 8, 9):
        names.refuse(f"Its UNet takes {config.in_channels} channels; the SD family takes 4, 8 or 9.")
    if config.context_dim is None:
        names.refuse("Its UNet has no attention to a prompt.")
    vector, linear = config.adm_in_channels, config.use_linear_in_transformer
    if vector is None:
        return (SD2, replace(config, attn_precision=torch.float32)) if linear else (SD1, config)
    if not linear or config.transformer_depth[:1] != (0,):
        names.refuse("Its UNet takes a picture as vector conditioning (unCLIP, Lotus).")
    if vector - REFINER_SIZES == config.context_dim:
        return SDXL_REFINER, config
    if vector <= SDXL_SIZES:
        names.refuse(f"Its vector conditioning is {vector} wide; SDXL's is wider than {SDXL_SIZES}.")
    return FAMILIES[SMALL_SDXL.get(config.transformer_depth, SDXL.name)], config


def unet_config(names: Shapes) -> UNetConfig:
    """Read the structure of an SD-family UNet off its tensors."""
    channels, in_channels = names.shape("input_blocks.0.0.weight", 4)[:2]
    if channels % GROUPS:
        raise WeightFileInvalid(
            "The UNet's width must be a multiple of 32.", file=names.file_name, tensor="input_blocks.0.0.weight", channels=channels
        )
    blocks, mults, depths = [0], [1], []
    for i in range(1, names.count("input_blocks.{}.")):
        if f"input_blocks.{i}.0.op.weight" in names:
            blocks.append(0)
            mults.append(mults[-1])
            continue
        width = names.shape(f"input_blocks.{i}.0.out_layers.3.weight", 4)[0]
        if width % channels:
            raise WeightFileInvalid(
                "A level's width is no multiple of the UNet's.",
                file=names.file_name,
                tensor=f"input_blocks.{i}.0.out_layers.3.weight",
                width=width,
            )
        blocks[-1] += 1
        mults[-1] = width // channels
        depths.append(_depth(names, f"input_blocks.{i}.1"))
    out_depths = [_depth(names, f"output_blocks.{i}.1") for i in range(names.count("output_blocks.{}."))]
    if len(out_depths) != sum(blocks) + len(blocks):
        raise WeightFileInvalid(
            "The UNet's way up does not fit its way down.",
            file=names.file_name,
            output_blocks=len(out_depths),
            expected=sum(blocks) + len(blocks),
        )
    linear, context = _transformer_facts(names)
    vector = names.shape("label_emb.0.0.weight", 2)[1] if "label_emb.0.0.weight" in names else None
    sd1_heads = not linear and vector is None
    return UNetConfig(
        in_channels=in_channels,
        model_channels=channels,
        out_channels=names.shape("out.2.weight", 4)[0] if "out.2.weight" in names else 4,
        num_res_blocks=tuple(blocks),
        channel_mult=tuple(mults),
        transformer_depth=tuple(depths),
        transformer_depth_middle=_middle_depth(names),
        transformer_depth_output=tuple(reversed(out_depths)),
        context_dim=context,
        num_heads=8 if sd1_heads else -1,
        num_head_channels=-1 if sd1_heads else 64,
        use_linear_in_transformer=linear,
        adm_in_channels=vector,
    )


def _depth(names: Shapes, block: str) -> int:
    return names.count(block + ".transformer_blocks.{}.")


def _middle_depth(names: Shapes) -> int:
    if names.has_under("middle_block.1."):
        return _depth(names, "middle_block.1")
    return -1 if names.has_under("middle_block.0.") else -2


def _transformer_facts(names: Shapes) -> tuple[bool, int | None]:
    """(whether proj_in is linear, width of the context) of the first spatial transformer; (False, None) without any."""
    ending = ".transformer_blocks.0.attn2.to_k.weight"
    first = next((name for name in names.shapes if name.endswith(ending)), None)
    if first is None:
        return False, None
    context = names.shape(first, 2)[1]
    proj_in = names.shapes.get(first[: -len(ending)] + ".proj_in.weight", ())
    return len(proj_in) == 2, context


def is_diffusers_unet(names: Shapes) -> bool:
    """Whether a UNet, its prefix off, has the names of the diffusers layout."""
    return "conv_in.weight" in names and names.has_under("down_blocks.0.")


def diffusers_unet_config(names: Shapes) -> UNetConfig:
    """The structure of a UNet in diffusers' layout, as far as its names are decided by it. Raises WeightFileInvalid."""
    levels = names.count("down_blocks.{}.")
    blocks = tuple(names.count(f"down_blocks.{level}.resnets.{{}}.") for level in range(levels))
    down = [(level, j) for level in range(levels) for j in range(blocks[level])]
    up = [(i, j) for i in range(levels) for j in range(names.count(f"up_blocks.{i}.resnets.{{}}."))]

    def depth(place: str) -> int:
        return names.count(place + ".transformer_blocks.{}.")

    if names.has_under("mid_block.attentions.0."):
        middle = depth("mid_block.attentions.0")
    else:
        middle = -1 if names.has_under("mid_block.resnets.0.") else -2
    if len(up) != sum(blocks) + levels:
        raise WeightFileInvalid("The UNet's way up does not fit its way down.", file=names.file_name, output_blocks=len(up))
    return UNetConfig(
        in_channels=names.shape("conv_in.weight", 4)[1],
        model_channels=names.shape("conv_in.weight", 4)[0],
        out_channels=4,
        num_res_blocks=blocks,
        channel_mult=(1,) * levels,
        transformer_depth=tuple(depth(f"down_blocks.{level}.attentions.{j}") for level, j in down),
        transformer_depth_middle=middle,
        transformer_depth_output=tuple(reversed([depth(f"up_blocks.{i}.attentions.{j}") for i, j in up])),
        context_dim=None,
    )


def as_checkpoint(names: Shapes) -> Shapes:
    """A UNet's shapes under the names of checkpoints, whichever layout it has."""
    if not is_diffusers_unet(names):
        return names
    return Shapes(names.file_name, run_time_shapes("diffusers", names.shapes, diffusers_unet_config(names)))


def text_layout(names: Shapes) -> str:
    """The layout of a CLIP text encoder, its prefix off."""
    return "openclip" if OPENCLIP_MARK in names else ""


def clip_kind(names: Shapes) -> str:
    """clip_g, clip_h or clip_l, by the number of layers. Contract: models.md section 6."""
    start = "transformer.resblocks." if text_layout(names) else "encoder.layers."
    layers = max((names.count(prefix + start + "{}.") for prefix in ("", "text_model.")), default=0)
    return "clip_g" if layers > 30 else "clip_h" if layers > 22 else "clip_l"


def clip_config(names: Shapes, activation: str) -> ClipTextConfig:
    """Sizes of a CLIP text transformer in HF layout, `text_model.` included. Raises WeightFileInvalid."""
    vocabulary, width = names.shape("text_model.embeddings.token_embedding.weight", 2)
    layers = names.count("text_model.encoder.layers.{}.")
    if layers == 0:
        raise WeightFileInvalid("The text encoder has no layers.", file=names.file_name)
    heads = max(width // 64, 1)
    if width % heads:
        raise WeightFileInvalid("The text encoder's width is no multiple of its heads.", file=names.file_name, width=width, heads=heads)
    if (width, layers) == (CLIP_H_WIDTH, CLIP_H_LAYERS - 1):
        layers = CLIP_H_LAYERS
    projection = names.shape("text_projection.weight", 2)[0] if "text_projection.weight" in names else None
    return ClipTextConfig(
        hidden_size=width,
        intermediate_size=names.shape("text_model.encoder.layers.0.mlp.fc1.weight", 2)[0],
        num_hidden_layers=layers,
        num_attention_heads=heads,
        hidden_act=activation,
        max_position_embeddings=names.shape("text_model.embeddings.position_embedding.weight", 2)[0],
        vocab_size=vocabulary,
        projection_dim=projection,
    )


def is_diffusers_vae(names: Shapes) -> bool:
    """Whether a VAE, its prefix off, has the names of the diffusers layout."""
    return "decoder.up_blocks.0.resnets.0.norm1.weight" in names


def vae_config(names: Shapes) -> VaeConfig:
    """Structure of an AutoencoderKL, its prefix off, in either layout. Raises ModelUnknown for other VAEs, WeightFileInvalid."""
    if is_diffusers_vae(names):
        renamed = vae_names(names.shapes)
        names = Shapes(names.file_name, {renamed[name]: shape for name, shape in names.shapes.items()})
    if "decoder.conv_in.weight" not in names or "encoder.conv_in.weight" not in names or "decoder.mid.block_1.mix_factor" in names:
        names.refuse("There is no VAE of the SD family in it.")
    ch = names.shape("encoder.conv_in.weight", 4)[0]
    if ch % GROUPS:
        raise WeightFileInvalid(
            "The VAE's width must be a multiple of 32.", file=names.file_name, tensor="encoder.conv_in.weight", channels=ch
        )
    mults = []
    for level in range(names.count("encoder.down.{}.")):
        width = names.shape(f"encoder.down.{level}.block.0.conv1.weight", 4)[0]
        mults.append(max(width // ch, 1))
    blocks = names.count("encoder.down.0.block.{}.")
    if not mults or not blocks:
        raise WeightFileInvalid("The VAE's encoder has no blocks.", file=names.file_name)
    return VaeConfig(
        ch=ch,
        ch_mult=tuple(mults),
        num_res_blocks=blocks,
        z_channels=names.shape("decoder.conv_in.weight", 4)[1],
        use_quant="post_quant_conv.weight" in names,
        in_channels=names.shape("encoder.conv_in.weight", 4)[1],
        out_ch=names.shape("decoder.conv_out.weight", 4)[0],
    )
