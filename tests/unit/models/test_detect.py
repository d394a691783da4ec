"""Families and structures are read off names and shapes, at any width."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from comfy.errors import ModelUnknown, WeightFileInvalid
from comfy.models.component import network_shapes
from comfy.models.detect import Shapes, clip_config, detect_family, unet_config, unet_prefix, vae_config
from comfy.models.family import UNetConfig, VaeConfig
from comfy.models.random_checkpoint import Sizes, full_sizes, small_sizes
from comfy.text_encoders.clip_text import ClipTextConfig

FULL = full_sizes()
# SDXL base, SDXL refiner, SSD-1B (contract, models.md section 4)
SDXL = UNetConfig(4, 320, 4, (2, 2, 2), (1, 2, 4), (0, 0, 2, 2, 10, 10), 10, (0, 0, 0, 2, 2, 2, 10, 10, 10), 2048, -1, 64, True, 2816)
REFINER = UNetConfig(
    4, 384, 4, (2, 2, 2, 2), (1, 2, 4, 4), (0, 0, 4, 4, 4, 4, 0, 0), 4, (0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0), 1280, -1, 64, True, 2560
)
SSD1B = UNetConfig(4, 320, 4, (2, 2, 2), (1, 2, 4), (0, 0, 2, 2, 4, 4), -1, (0, 0, 0, 1, 1, 2, 10, 4, 4), 2048, -1, 64, True, 2816)
KOALA_700M = UNetConfig(4, 320, 4, (1, 1, 1), (1, 2, 4), (0, 2, 5), -2, (0, 0, 2, 2, 5, 5), 2048, -1, 64, True, 2816)
VEGA = replace(SSD1B, transformer_depth=(0, 0, 1, 1, 2, 2), transformer_depth_output=(0, 0, 0, 1, 1, 1, 2, 2, 2))
KOALA_1B = replace(KOALA_700M, transformer_depth=(0, 2, 6), transformer_depth_middle=6, transformer_depth_output=(0, 0, 2, 2, 6, 6))
SD2 = replace(FULL.unet, context_dim=1024, num_heads=-1, num_head_channels=64, use_linear_in_transformer=True)


def shapes(config: UNetConfig | VaeConfig | ClipTextConfig, prefix: str = "") -> Shapes:
    return Shapes("a.safetensors", {prefix + name: shape for name, shape in network_shapes(config).items()})


@pytest.mark.parametrize("sizes", [FULL, full_sizes(9), small_sizes(), small_sizes(64, (1, 2, 2), 128), small_sizes(in_channels=8)])
def test_sd1_at_any_width(sizes: Sizes) -> None:
    family, config = detect_family(shapes(sizes.unet))
    assert family.name == "SD15"
    assert config == sizes.unet


@pytest.mark.parametrize("config", [SDXL, REFINER, SSD1B, KOALA_700M])
def test_structure_of_relatives_is_read_whole(config: UNetConfig) -> None:
    assert unet_config(shapes(config)) == config


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (SDXL, "SDXL"),
        (replace(SDXL, in_channels=9), "SDXL"),
        (REFINER, "SDXLRefiner"),
        (SSD1B, "SSD1B"),
        (VEGA, "Segmind_Vega"),
        (KOALA_700M, "KOALA_700M"),
        (KOALA_1B, "KOALA_1B"),
    ],
)
def test_sdxl_and_its_relatives(config: UNetConfig, name: str) -> None:
    family, found = detect_family(shapes(config))
    assert family.name == name
    assert found == config


def test_sd2_computes_attention_in_float32() -> None:
    family, found = detect_family(shapes(SD2))
    assert family.name == "SD20"
    assert found == replace(SD2, attn_precision=torch.float32)


@pytest.mark.parametrize("adm", [4, 1536, 2048])
def test_relatives_without_a_row_are_unknown(adm: int) -> None:
    with pytest.raises(ModelUnknown, match="picture as vector conditioning"):
        detect_family(shapes(replace(SD2, adm_in_channels=adm)))
    with pytest.raises(ModelUnknown):
        detect_family(shapes(replace(SDXL, adm_in_channels=min(adm, 1536))))


@pytest.mark.parametrize("sizes", [FULL, small_sizes()])
def test_clip_and_vae(sizes: Sizes) -> None:
    assert clip_config(shapes(sizes.clip), "quick_gelu") == sizes.clip
    assert vae_config(shapes(sizes.vae)) == sizes.vae


def test_vae_without_quant_convolutions() -> None:
    config = replace(FULL.vae, z_channels=16, use_quant=False)
    assert vae_config(shapes(config)) == config


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "model.model.", "net."])
def test_prefix(prefix: str) -> None:
    assert unet_prefix(shapes(FULL.unet, prefix)) == prefix


def test_prefix_of_few_tensors() -> None:
    assert unet_prefix(Shapes("a", {"model.x": (1,), "net.y": (1,)})) == "model."
    assert unet_prefix(Shapes("a", {"y": (1,)})) == ""


def test_unknown_says_what_was_seen() -> None:
    with pytest.raises(ModelUnknown) as caught:
        detect_family(
            Shapes("flux.safetensors", {"double_blocks.0.img_attn.qkv.weight": (9, 3), "double_blocks.1.img_attn.qkv.weight": (9, 3)})
        )
    assert caught.value.facts == {"file": "flux.safetensors", "tensors": 2, "seen": {"double_blocks.0": 1, "double_blocks.1": 1}}


def changed(name: str, shape: tuple[int, ...] | None) -> Shapes:
    """The full UNet with one tensor of another shape, or without it."""
    found = {key: shape if key == name else given for key, given in network_shapes(FULL.unet).items()}
    return Shapes("bad.safetensors", {key: given for key, given in found.items() if given is not None})


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("input_blocks.0.0.weight", (320,)),
        ("input_blocks.0.0.weight", (33, 4, 3, 3)),
        ("input_blocks.0.0.weight", (0, 4, 3, 3)),
        ("input_blocks.4.0.out_layers.3.weight", (641, 640, 3, 3)),
        ("input_blocks.4.0.out_layers.3.weight", None),
        ("input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", (320,)),
        ("out.2.weight", (4, 320)),
    ],
)
def test_impossible_shapes_name_the_tensor(name: str, shape: tuple[int, ...] | None) -> None:
    with pytest.raises(WeightFileInvalid) as caught:
        detect_family(changed(name, shape))
    assert caught.value.facts["tensor"] == name


def test_a_way_up_that_does_not_fit() -> None:
    found = {name: shape for name, shape in network_shapes(FULL.unet).items() if not name.startswith("output_blocks.11.")}
    with pytest.raises(WeightFileInvalid, match="way up"):
        detect_family(Shapes("bad.safetensors", found))


def test_five_channels_in_is_no_sd1() -> None:
    with pytest.raises(ModelUnknown, match="5 channels"):
        detect_family(shapes(replace(FULL.unet, in_channels=5)))


def test_other_vaes_are_unknown() -> None:
    with pytest.raises(ModelUnknown, match="no VAE"):
        vae_config(Shapes("a", {"decoder.up_blocks.0.resnets.0.norm1.weight": (3,)}))
    with pytest.raises(ModelUnknown, match="no VAE"):
        vae_config(Shapes("a", {"x": (3,)}))
