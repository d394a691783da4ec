"""The UNet, the autoencoder and CLIP equal an independent implementation (tests/data/networks/README.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.data.networks import cases

REFERENCES = load_file(Path(cases.__file__).with_name("references.safetensors"))


def relative_l2(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("name", cases.UNETS)
def test_unet_equals_diffusers(name: str) -> None:
    assert relative_l2(cases.build(name)(**cases.unet_inputs(name)), REFERENCES[name]) <= 1e-5


@pytest.mark.parametrize("name", cases.VAES)
def test_autoencoder_equals_diffusers(name: str) -> None:
    network: Any = cases.build(name)
    inputs = cases.vae_inputs(name)
    assert relative_l2(network.encode(inputs["pixels"]), REFERENCES[f"{name}/encode"]) <= 1e-5
    assert relative_l2(network.decode(inputs["latent"]), REFERENCES[f"{name}/decode"]) <= 1e-5


@pytest.mark.parametrize("name", cases.CLIPS)
def test_clip_equals_transformers(name: str) -> None:
    network: Any = cases.build(name)
    embeds = network.embed(cases.CLIP_IDS)
    last = network(embeds, cases.CLIP_POOL_AT)
    before_last = network(embeds, cases.CLIP_POOL_AT, layer=-2, norm_layer=False)
    pooled = last.pooled if network.text_projection is None else network.text_projection(last.pooled)
    assert relative_l2(last.hidden, REFERENCES[f"{name}/last"]) <= 1e-5
    assert relative_l2(before_last.hidden, REFERENCES[f"{name}/before_last"]) <= 1e-5
    assert relative_l2(pooled, REFERENCES[f"{name}/pooled"]) <= 1e-5


def test_a_changed_weight_is_seen() -> None:
    """The comparison above would notice one wrong tensor."""
    network = cases.build("unet_sd1")
    network.get_parameter("middle_block.1.transformer_blocks.0.attn2.to_k.weight").mul_(0.9)
    assert relative_l2(network(**cases.unet_inputs("unet_sd1")), REFERENCES["unet_sd1"]) > 1e-5


def test_clip_layer_that_is_not_there_means_the_last_one() -> None:
    network: Any = cases.build("clip_l")
    embeds = network.embed(cases.CLIP_IDS)
    last = network(embeds, cases.CLIP_POOL_AT).hidden
    assert torch.equal(network(embeds, cases.CLIP_POOL_AT, layer=-9).hidden, last)
    assert torch.equal(network(embeds, cases.CLIP_POOL_AT, layer=-9, norm_layer=False).hidden, last)
