"""A difference of two models, extracted and loaded again, is the difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from comfy import folders
from comfy.config import Config
from comfy.errors import InputUnusable
from comfy.models.loader import load_checkpoint
from comfy.models.lora import file_tensors
from comfy.models.lora.apply import with_lora
from comfy.models.lora.extract import extracted, factors
from comfy_extras.nodes_lora_extract import LoraSave
from comfy_extras.nodes_model_merging import CLIPMergeSubtract, ModelMergeSubtract
from tests.fakes import cpu_context
from tests.hashed_weights import hashed
from tests.make_checkpoint import make_sd1_checkpoint


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 3, 3)])
def test_factors_give_a_low_rank_difference_back(shape: tuple[int, ...]) -> None:
    flat = hashed((8, 2), 1) @ hashed((2, shape[1] * (9 if len(shape) == 4 else 1)), 2)
    up, down = factors(flat.reshape(shape), 2)
    assert up.shape[:2] == (8, 2)
    assert down.shape == (2, *shape[1:])
    torch.testing.assert_close(up.flatten(1) @ down.flatten(1), flat, rtol=1e-4, atol=1e-4)
    assert factors(flat.reshape(shape), 100)[0].shape[1] == min(flat.shape)


def test_what_a_file_holds() -> None:
    weights = {"a.weight": torch.ones(4, 4), "a.bias": torch.ones(4), "norm.weight": torch.ones(4), "scale": torch.ones(1)}
    names = [name for name, _ in extracted(weights, "standard", 2, True)]
    assert names == ["a.lora_up.weight", "a.lora_down.weight", "a.diff_b", "norm.diff"]
    assert [name for name, _ in extracted(weights, "standard", 2, False)] == ["a.lora_up.weight", "a.lora_down.weight"]
    assert [name for name, _ in extracted(weights, "full_diff", 2, False)] == ["a.diff"]


def test_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [make_sd1_checkpoint(tmp_path / f"{seed}.safetensors", seed=seed) for seed in (1, 2)]
    a, b = (load_checkpoint(path, embedding_folders=()) for path in paths)
    config = Config(base_dir=tmp_path, output_dir=tmp_path, input_dir=tmp_path, temp_dir=tmp_path, user_dir=tmp_path)
    made = folders.Folders(config, tmp_path)
    monkeypatch.setattr(folders, "current", lambda: made)
    with cpu_context().activate():
        model, clip = ModelMergeSubtract().merge(a.model, b.model, 1.0)[0], CLIPMergeSubtract().merge(a.clip, b.clip, 1.0)[0]
        LoraSave.execute("x/mine", 4096, "standard", True, model, clip)
        path = tmp_path / "x" / "mine_00001_.safetensors"
        assert all(tensor.dtype == torch.float16 for tensor in load_file(path).values())
        changed, text = with_lora(b.model, b.clip, file_tensors(str(path)), 1.0, 1.0)
        for mine, right in ((changed, a.model), (text, a.clip)):
            found, expected = weights(mine), weights(right)
            assert list(found) == list(expected)
            for name, tensor in found.items():
                torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0.01, msg=name)
    with pytest.raises(InputUnusable):
        LoraSave.execute("x/mine", 4, "standard", True)


def weights(handle: Any) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = handle.get_sd() if hasattr(handle, "get_sd") else handle.model_state_dict()
    return {name: tensor for name, tensor in found.items() if "position_ids" not in name and "token_embedding" not in name}
