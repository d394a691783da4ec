"""VAEs in diffusers' layout: names as diffusers itself converts them (tests/data/networks/README.md), the same pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from comfy.models.diffusers_names import vae_names
from comfy.models.loader import load_vae
from comfy.models.vae import VAE
from tests.data.networks import cases
from tests.fakes import cpu_context

PAIRS: list[tuple[str, str]] = [tuple(pair) for pair in json.loads(Path(cases.__file__).with_name("vae_names.json").read_text())]
OLD = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}


def older(name: str) -> str:
    """The name as diffusers spelled it before 0.15."""
    for new, old in OLD.items():
        name = name.replace(new, old)
    return name


@pytest.mark.parametrize("spelling", [str, older])
def test_names(spelling: Any) -> None:
    found = vae_names(spelling(theirs) for _, theirs in PAIRS)
    assert found == {spelling(theirs): ours for ours, theirs in PAIRS}


def test_checkpoint_names_stay() -> None:
    ours = [ours for ours, _ in PAIRS]
    assert list(vae_names(ours).values()) == ours


def test_a_file_in_diffusers_layout_makes_the_same_pictures(tmp_path: Path, checkpoint_path: Path, checkpoint: Any) -> None:
    prefix = "first_stage_model."
    ours = {name.removeprefix(prefix): t for name, t in load_file(checkpoint_path).items() if name.startswith(prefix)}
    levels = 4
    theirs = {}
    for name, tensor in ours.items():
        new = name.replace(".nin_shortcut.", ".conv_shortcut.").replace(".norm_out.", ".conv_norm_out.")
        new = new.replace(".mid.block_1.", ".mid_block.resnets.0.").replace(".mid.block_2.", ".mid_block.resnets.1.")
        new = new.replace(".downsample.", ".downsamplers.0.").replace(".upsample.", ".upsamplers.0.")
        if ".mid.attn_1." in new:
            new = (
                new.replace(".mid.attn_1.", ".mid_block.attentions.0.")
                .replace(".norm.", ".group_norm.")
                .replace(".proj_out.", ".to_out.0.")
            )
            for letter in "qkv":
                new = new.replace(f".{letter}.", f".to_{letter}.")
            tensor = tensor[:, :, 0, 0] if tensor.ndim == 4 else tensor
        for level in range(levels):
            new = new.replace(f"encoder.down.{level}.block.", f"encoder.down_blocks.{level}.resnets.")
            new = new.replace(f"encoder.down.{level}.", f"encoder.down_blocks.{level}.")
            new = new.replace(f"decoder.up.{level}.block.", f"decoder.up_blocks.{levels - 1 - level}.resnets.")
            new = new.replace(f"decoder.up.{level}.", f"decoder.up_blocks.{levels - 1 - level}.")
        theirs[new] = tensor.contiguous()
    save_file(theirs, tmp_path / "vae.safetensors")
    latent = torch.linspace(-1, 1, 36).view(1, 4, 3, 3)
    with cpu_context().activate():
        expected = checkpoint.vae.decode(latent)
        assert torch.equal(load_vae(tmp_path / "vae.safetensors").decode(latent), expected)
        assert torch.equal(VAE(sd=theirs).decode(latent), expected)
