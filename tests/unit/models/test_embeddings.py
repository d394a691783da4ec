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

ROWS = hashed((2, 64), 21)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    save_file({"clip_g": torch.zeros(2, 48), "clip_l": ROWS}, tmp_path / "two.safetensors")
    save_file({"emb_params": ROWS}, tmp_path / "sub" / "first.safetensors")
    torch.save({"string_to_param": {"*": ROWS}, "name": "x"}, tmp_path / "classic.pt")
    torch.save([ROWS[:1], {"a": ROWS[1]}], tmp_path / "list.bin")
    torch.save({"step": 3}, tmp_path / "empty.pt")
    return tmp_path


@pytest.mark.parametrize("name", ["two", "two.safetensors", "sub/first", "classic", "list"])
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
