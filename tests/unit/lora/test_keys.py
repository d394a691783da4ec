"""Names in LoRA files mean the recorded weights (goldens README, section H.2): complete maps by their hash."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import Any

import pytest

from comfy.models.component import network_shapes
from comfy.models.family import UNetConfig
from comfy.models.lora.keys import text_keys, unet_keys
from comfy.models.random_checkpoint import full_sizes
from comfy.text_encoders.clip_text import ClipTextConfig
from tests import goldens

FACTS = goldens.facts("h_lora_keys")
SDXL = UNetConfig(
    in_channels=4,
    model_channels=320,
    out_channels=4,
    num_res_blocks=(2, 2, 2),
    channel_mult=(1, 2, 4),
    transformer_depth=(0, 0, 2, 2, 10, 10),
    transformer_depth_middle=10,
    transformer_depth_output=(0, 0, 0, 2, 2, 2, 10, 10, 10),
    context_dim=2048,
    num_head_channels=64,
    use_linear_in_transformer=True,
    adm_in_channels=2816,
)
CLIPS = {
    "clip_l": ClipTextConfig(projection_dim=768),
    "clip_h": ClipTextConfig(1024, 4096, 24, 16, "gelu", projection_dim=1024),
    "clip_g": ClipTextConfig(1280, 5120, 32, 20, "gelu", projection_dim=1280),
}


def unet(config: UNetConfig) -> dict[str, Any]:
    return unet_keys([f"diffusion_model.{name}" for name in network_shapes(config)], config)


def text(*streams: str) -> dict[str, Any]:
    """The map of these CLIPs, and of the few T5 weights that the recorded models had when T5 is one of them."""
    keys = [f"{stream}.transformer.{name}" for stream in streams if stream in CLIPS for name in network_shapes(CLIPS[stream])]
    if "t5xxl" in streams:
        keys += [key for key in FACTS["te/flux_clip_l_t5"]["by_target"] if key.startswith("t5xxl.")]
    return text_keys(keys)


MAPS = {
    "sd15_unet": lambda: unet(full_sizes().unet),
    "sdxl_unet": lambda: unet(SDXL),
    "te/clip_l_only": lambda: text("clip_l"),
    "te/sdxl_clip_l_g": lambda: text("clip_l", "clip_g"),
    "te/refiner_clip_g_only": lambda: text("clip_g"),
    "te/sd2_clip_h_only": lambda: text("clip_h"),
    "te/flux_clip_l_t5": lambda: text("clip_l", "t5xxl"),
    "te/sd3_clip_l_g_t5": lambda: text("clip_l", "clip_g", "t5xxl"),
}


@pytest.mark.parametrize("model", MAPS)
def test_the_whole_map_is_the_recorded_one(model: str) -> None:
    found, recorded = MAPS[model](), FACTS[model]
    by_target = defaultdict(list)
    for name, key in found.items():
        by_target[key].append(name)
    for key, names in recorded["by_target"].items():
        assert sorted(by_target[key]) == names, key
    assert (len(found), len(by_target)) == (recorded["n_lora_keys"], recorded["n_targets"])
    lines = "\n".join(sorted(f"{name}\t{key}\t-\t-" for name, key in found.items()))
    assert hashlib.sha256(lines.encode()).hexdigest() == recorded["sha256_of_sorted_lines"]
