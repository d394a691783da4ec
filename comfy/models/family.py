"""What differs between model families, a row each. Contract: models.md sections 4 to 6."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from comfy.text_encoders.clip_encode import ClipRule

HALF_FIRST = (torch.float16, torch.bfloat16, torch.float32)
BFLOAT_FIRST = (torch.bfloat16, torch.float32)


@dataclass(frozen=True)
class TextStream:
    """One text encoder of a family.

    name       as in `clip_l`: of the component, of the weight keys that patches use, of the slab
    tokens     key of its chunks among a prompt's tokens
    tokenizer  name of a tokenizer in `comfy.text_encoders.tokenizer`
    prefixes   where it may lie in an all-in-one file, HF key layout behind it
    activation of its feed-forward
    rule       the state that is its conditioning when no clip skip is asked for
    """

    name: str
    tokens: str
    tokenizer: str
    prefixes: tuple[str, ...]
    activation: str
    rule: ClipRule


@dataclass(frozen=True)
class Family:
    """One row: facts that no file states.

    sampling         kind and settings for `make_model_sampling`
    latent_format    name of a class in `comfy.latent_formats`
    dtypes           in which the denoiser may compute, best first; text_dtypes, vae_dtypes likewise
    vae_prefix       where the VAE lies in an all-in-one file
    compose          name of a function in `comfy.text_encoders.compose` that joins the streams; "" for a single stream
    vector           name of a function in `comfy.models.adm` that makes the vector conditioning; "" for none
    """

    name: str
    sampling: str
    latent_format: str
    dtypes: tuple[torch.dtype, ...]
    streams: tuple[TextStream, ...]
    sampling_settings: tuple[tuple[str, Any], ...] = ()
    vae_prefix: str = "first_stage_model."
    text_dtypes: tuple[torch.dtype, ...] = HALF_FIRST
    vae_dtypes: tuple[torch.dtype, ...] = BFLOAT_FIRST
    compose: str = ""
    vector: str = ""


SD1 = Family(
    name="SD15",
    sampling="eps",
    latent_format="SD15",
    dtypes=HALF_FIRST,
    streams=(TextStream("clip_l", "l", "CLIP_L", ("cond_stage_model.transformer.",), "quick_gelu", ClipRule()),),
)
#: a layer before the last, without the final norm: what the families after SD2 read
_PENULTIMATE = ClipRule(layer=-2, norm_layer=False)
_CLIP_G = TextStream(
    "clip_g", "g", "CLIP_G", ("conditioner.embedders.1.model.",), "gelu", ClipRule(layer=-2, norm_layer=False, projected=True)
)
SD2 = Family(
    name="SD20",
    sampling="eps",
    latent_format="SD15",
    dtypes=HALF_FIRST,
    streams=(
        TextStream(
            "clip_h",
            "h",
            "CLIP_H",
            ("cond_stage_model.model.", "conditioner.embedders.0.model.", "cond_stage_model.transformer."),
            "gelu",
            ClipRule(layer=-2, projected=True),
        ),
    ),
)
SDXL = Family(
    name="SDXL",
    sampling="eps",
    latent_format="SDXL",
    dtypes=HALF_FIRST,
    streams=(TextStream("clip_l", "l", "CLIP_L", ("conditioner.embedders.0.transformer.",), "quick_gelu", _PENULTIMATE), _CLIP_G),
    compose="sdxl",
    vector="sdxl_vector",
)
SDXL_REFINER = replace(
    SDXL,
    name="SDXLRefiner",
    streams=(replace(_CLIP_G, prefixes=("conditioner.embedders.0.model.",)),),
    compose="",
    vector="refiner_vector",
)
#: SDXL with fewer layers: the transformer depths on the way down name them
SMALL_SDXL = {(0, 0, 2, 2, 4, 4): "SSD1B", (0, 0, 1, 1, 2, 2): "Segmind_Vega", (0, 2, 5): "KOALA_700M", (0, 2, 6): "KOALA_1B"}
FAMILIES: dict[str, Family] = {
    family.name: family for family in (SD1, SD2, SDXL, SDXL_REFINER, *(replace(SDXL, name=name) for name in SMALL_SDXL.values()))
}


@dataclass(frozen=True)
class UNetConfig:
    """Structure of one SD-family UNet; fields as for `UNetModel`."""

    in_channels: int
    model_channels: int
    out_channels: int
    num_res_blocks: tuple[int, ...]
    channel_mult: tuple[int, ...]
    transformer_depth: tuple[int, ...]
    transformer_depth_middle: int
    transformer_depth_output: tuple[int, ...]
    context_dim: int | None
    num_heads: int = -1
    num_head_channels: int = -1
    use_linear_in_transformer: bool = False
    adm_in_channels: int | None = None
    attn_precision: torch.dtype | None = None


@dataclass(frozen=True)
class VaeConfig:
    """Structure of one AutoencoderKL; `use_quant` when the file has the quant convolutions."""

    ch: int
    ch_mult: tuple[int, ...]
    num_res_blocks: int
    z_channels: int
    use_quant: bool
    in_channels: int = 3
    out_ch: int = 3

    @property
    def ratio(self) -> int:
        """Pixels per latent cell along one side."""
        return 2 ** (len(self.ch_mult) - 1)
