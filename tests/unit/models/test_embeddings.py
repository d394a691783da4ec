"""Textual inversions by name, in every form that files have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from comfy.errors import WeightFileInvalid
from comfy.models.embeddings import find_embedding
from comfy.models.loader import load_checkpoint
from tests.fakes import cpu_context
from tests.hashed_weights import hashed
from tests.make_families import G, L, make_family_checkpoint

ROWS = hashed((2, 64), 21)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    save_file({"clip_g": torch.zeros(2, 48), "clip_l": ROWS}, tmp_path / "two.safetensors")
    save_file({"emb_params": ROWS}, tmp_path / "sub" / "first.safetensors")
    torch.save({"string_to_param": {"*": ROWS}, "name": "x"}, tmp_path / "classic.pt")
    torch.save([ROWS[:1], {"a": ROWS[1]}], tmp_path / "list.bin")
    torch.save({"step": 3}, tmp_path / "empty.pt")
    bundled = {"lora_te_x.alpha": torch.ones(1), "bundle_emb.a.clip_l": ROWS[:1].clone(), "bundle_emb.b.clip_l": ROWS[1].clone()}
    save_file({**bundled, "bundle_emb.a.clip_g": torch.zeros(2, 48)}, tmp_path / "lora.safetensors")
    return tmp_path


@pytest.mark.parametrize("name", ["two", "two.safetensors", "sub/first", "classic", "list", "lora"])
def test_forms(folder: Path, name: str) -> None:
    found = find_embedding([str(folder / "nowhere"), str(folder)], name, "clip_l")
    assert found is not None
    assert torch.equal(found, ROWS)


@pytest.mark.parametrize("name", ["", "nothing", "sub", "../" + "two", "/etc/hostname", "two.txt", "a\0b"])
def test_names_that_are_not_found(folder: Path, name: str) -> None:
    assert find_embedding([str(folder / "sub")] if name.startswith("..") else [str(folder)], name, "clip_l") is None


def test_a_file_without_an_embedding(folder: Path) -> None:
    with pytest.raises(WeightFileInvalid):
        find_embedding([str(folder)], "empty", "clip_l")


def test_a_prompt_with_an_embedding(folder: Path, checkpoint_path: Path) -> None:
    clip: Any = load_checkpoint(checkpoint_path, embedding_folders=[str(folder)]).clip
    tokens = clip.tokenize("a embedding:two cat")
    row = tokens["l"][0]
    assert [t if isinstance(t, int) else "row" for t, _ in row[:6]] == [49406, 320, "row", "row", 2368, 49407]
    with cpu_context().activate():
        assert not torch.equal(clip.encode_from_tokens(tokens), clip.encode("a cat"))


def test_each_encoder_of_sdxl_takes_the_rows_of_its_own_name(tmp_path: Path) -> None:
    save_file({"clip_l": hashed((1, L), 1), "clip_g": hashed((2, G), 2)}, tmp_path / "both.safetensors")
    save_file({"clip_g": hashed((1, G), 3)}, tmp_path / "one.safetensors")
    clip = load_checkpoint(make_family_checkpoint(tmp_path / "m.safetensors", "sdxl"), embedding_folders=(str(tmp_path),)).clip
    assert clip is not None
    tokens = clip.tokenize("a embedding:both")
    assert [[tuple(token[0].shape) for token in tokens[key][0] if isinstance(token[0], torch.Tensor)] for key in "lg"] == [
        [(L,)],
        [(G,), (G,)],
    ]
    with cpu_context().activate():
        plain, both, one = (clip.encode(text) for text in ("a", "a embedding:both", "a embedding:one"))
    assert not torch.equal(both[..., :L], plain[..., :L])
    assert not torch.equal(both[..., L:], plain[..., L:])
    torch.testing.assert_close(one[..., :L], plain[..., :L])
    assert not torch.equal(one[..., L:], plain[..., L:])
