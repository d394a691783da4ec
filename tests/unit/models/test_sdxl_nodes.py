"""SDXL's prompt nodes give the recorded conditionings' facts (goldens README, section E.2), at any width."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from comfy.errors import InputUnusable
from comfy.models.loader import Checkpoint, load_checkpoint
from comfy_extras.nodes_clip_sdxl import CLIPTextEncodeSDXL, CLIPTextEncodeSDXLRefiner
from tests import goldens
from tests.fakes import cpu_context
from tests.make_families import G, L, make_family_checkpoint

FACTS = goldens.facts("e_encode")


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return load_checkpoint(make_family_checkpoint(tmp_path_factory.mktemp("sdxl") / "a.safetensors", "sdxl"), embedding_folders=())


def facts_of(conditioning: Any, recorded: dict[str, Any]) -> None:
    [(tokens, found)] = conditioning
    assert sorted(found) == recorded["keys"]
    assert list(tokens.shape) == [*recorded["cond_shape"][:2], L + G]
    for name in recorded["keys"]:
        assert name == "pooled_output" or found[name] == recorded[name]


def test_two_prompts_and_six_sizes(sdxl: Checkpoint) -> None:
    recorded, sizes = FACTS["cases"]["sdxl/node_long_g_short_l"], {}
    for name in ("width", "height", "crop_w", "crop_h", "target_width", "target_height"):
        sizes[name] = recorded[name]
    text_g = " ".join(["a red cube"] * 40)
    with cpu_context().activate():
        found = CLIPTextEncodeSDXL.execute(sdxl.clip, text_g=text_g, text_l="a cat", **sizes).args[0]
        facts_of(found, recorded)
        alone = sdxl.clip.encode_from_tokens(sdxl.clip.tokenize(text_g))  # type: ignore[union-attr]
        short = sdxl.clip.encode_from_tokens(sdxl.clip.tokenize("a cat"))  # type: ignore[union-attr]
    assert torch.equal(found[0][0][..., L:], alone[..., L:])
    assert torch.equal(found[0][0][:, :77, :L], short[..., :L])


def test_the_refiners_score(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(make_family_checkpoint(tmp_path / "a.safetensors", "refiner"), embedding_folders=())
    with cpu_context().activate():
        [(tokens, found)] = CLIPTextEncodeSDXLRefiner.execute(checkpoint.clip, ascore=6.5, width=832, height=1216, text="a").args[0]
    recorded = FACTS["cases"]["sdxl/node_refiner_fields"]
    assert sorted(found) == recorded["keys"]
    assert {name: found[name] for name in recorded["keys"] if name != "pooled_output"} == {
        name: recorded[name] for name in recorded["keys"] if name != "pooled_output"
    }
    assert tokens.shape == (1, 77, G)


def test_a_missing_text_encoder_is_named() -> None:
    with pytest.raises(InputUnusable, match="CLIP"):
        CLIPTextEncodeSDXLRefiner.execute(None, ascore=6.0, width=8, height=8, text="a")
