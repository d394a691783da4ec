"""Mixed models have the weights that the formula says; saved ones load again as the same model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from comfy import folders
from comfy.config import Config
from comfy.device.context import DeviceContext
from comfy.errors import InputUnusable
from comfy.models.loader import Checkpoint, load_checkpoint, load_clip, load_diffusion_model, load_vae
from comfy_extras import nodes_model_merging as nodes
from comfy_extras.nodes_model_merging_model_specific import ModelMergeSD1, ModelMergeSDXL
from tests.fakes import cpu_context
from tests.hashed_weights import hashed
from tests.make_checkpoint import make_sd1_checkpoint
from tests.make_families import make_family_checkpoint

KEYS = (
    "diffusion_model.input_blocks.1.0.in_layers.2.weight",
    "diffusion_model.middle_block.0.in_layers.2.weight",
    "diffusion_model.out.2.weight",
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Checkpoint]:
    folder = tmp_path_factory.mktemp("models")
    return [load_checkpoint(make_sd1_checkpoint(folder / f"{seed}.safetensors", seed=seed), embedding_folders=()) for seed in (1, 2)]


@pytest.fixture
def lane() -> Any:
    context: DeviceContext = cpu_context()
    with context.activate():
        yield context
    context.resident.check()


def weights(handle: Any) -> list[Tensor]:
    found = handle.model_state_dict()
    return [found[key] for key in KEYS]


def test_mixtures_of_models(pair: list[Checkpoint], lane: DeviceContext) -> None:
    a, b = (checkpoint.model for checkpoint in pair)
    first, second = weights(a), weights(b)
    for merged, own, other in (
        (nodes.ModelMergeSimple().merge(a, b, 0.3)[0], 0.3, 0.7),
        (nodes.ModelMergeSubtract().merge(a, b, 0.5)[0], 0.5, -0.5),
        (nodes.ModelMergeAdd().merge(a, b)[0], 1.0, 1.0),
    ):
        for found, x, y in zip(weights(merged), first, second):
            torch.testing.assert_close(found, own * x + other * y)
    for before, after in ((first, weights(a)), (second, weights(b))):
        assert all(torch.equal(x, y) for x, y in zip(before, after))


def test_a_ratio_for_each_block(pair: list[Checkpoint], lane: DeviceContext) -> None:
    a, b = (checkpoint.model for checkpoint in pair)
    ratios = {"input": 1.0, "middle": 0.25, "out": 0.0}
    found, first, second = weights(nodes.ModelMergeBlocks().merge(a, b, **ratios)[0]), weights(a), weights(b)
    for mine, x, y, ratio in zip(found, first, second, ratios.values()):
        torch.testing.assert_close(mine, ratio * x + (1 - ratio) * y)
    specific = {name: 1.0 for name in ModelMergeSD1.INPUT_TYPES()["required"] if name not in ("model1", "model2")}
    specific["middle_block.0."] = 0.0
    found = weights(ModelMergeSD1().merge(a, b, **specific)[0])
    assert torch.equal(found[0], first[0])
    torch.testing.assert_close(found[1], second[1])


def test_the_longest_name_decides_and_the_first_ratio_is_for_the_rest() -> None:
    factors = nodes.by_blocks({"time_embed.": 0.5, "input_blocks.1": 0.25, "input_blocks.1.1": 1.0})
    assert factors("diffusion_model.input_blocks.1.1.x.weight") == (0.0, 1.0)
    assert factors("diffusion_model.input_blocks.1.0.x.weight") == (0.75, 0.25)
    assert factors("diffusion_model.other") == (0.5, 0.5)


def test_mixtures_of_text_encoders(pair: list[Checkpoint], lane: DeviceContext) -> None:
    key = "clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.weight"
    x, y = (checkpoint.clip.get_sd()[key] for checkpoint in pair if checkpoint.clip is not None)
    a, b = (checkpoint.clip for checkpoint in pair)
    torch.testing.assert_close(nodes.CLIPMergeSimple().merge(a, b, 0.3)[0].get_sd()[key], 0.3 * x + 0.7 * y)
    torch.testing.assert_close(nodes.CLIPMergeSubtract().merge(a, b, 2.0)[0].get_sd()[key], 2 * x - 2 * y)
    torch.testing.assert_close(nodes.CLIPMergeAdd().merge(a, b)[0].get_sd()[key], x + y)
    with pytest.raises(InputUnusable):
        nodes.CLIPMergeAdd().merge(a, None)


def test_a_mixture_of_mixtures(pair: list[Checkpoint], lane: DeviceContext) -> None:
    a, b = (checkpoint.model for checkpoint in pair)
    difference = nodes.ModelMergeSubtract().merge(a, b, 1.0)[0]
    back = nodes.ModelMergeAdd().merge(b, difference)[0]
    for found, expected in zip(weights(back), weights(a)):
        torch.testing.assert_close(found, expected)


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    config = Config(
        base_dir=tmp_path, output_dir=tmp_path / "out", input_dir=tmp_path, temp_dir=tmp_path / "temp", user_dir=tmp_path / "user"
    )
    made = folders.Folders(config, tmp_path)
    monkeypatch.setattr(folders, "current", lambda: made)
    return tmp_path / "out"


@pytest.mark.parametrize("family", ["sd2_v", "sdxl_v", "cosxl", "refiner"])
def test_a_saved_checkpoint_is_the_one_that_was_loaded(family: str, tmp_path: Path, output: Path, lane: DeviceContext) -> None:
    path = make_family_checkpoint(tmp_path / "a.safetensors", family)
    model, clip, vae = load_checkpoint(path, embedding_folders=())
    nodes.CheckpointSave().save(model, clip, vae, "checkpoints/mine", prompt={"1": {}})
    with safe_open(path, "pt") as ours, safe_open(output / "checkpoints" / "mine_00001_.safetensors", "pt") as saved:
        names = set(ours.keys())
        assert set(saved.keys()) == names
        for name in names:
            assert saved.get_tensor(name).dtype == ours.get_tensor(name).dtype, name
            assert torch.equal(saved.get_tensor(name), ours.get_tensor(name)), name
        assert saved.metadata()["prompt"] == '{"1": {}}'
        assert saved.metadata()["modelspec.architecture"].startswith("stable-diffusion")


def test_saved_parts_load_again_with_their_patches(pair: list[Checkpoint], output: Path, lane: DeviceContext) -> None:
    model, clip, vae = pair[0]
    assert clip is not None
    assert vae is not None
    merged = nodes.ModelMergeSimple().merge(model, pair[1].model, 0.5)[0]
    nodes.ModelSave().save(merged, "m")
    nodes.CLIPSave().save(clip, "c")
    nodes.VAESave().save(vae, "v")
    again = load_diffusion_model(output / "m_00001_.safetensors")
    for mine, expected in zip(weights(again), weights(merged)):
        assert torch.equal(mine, expected.half().float())
    assert torch.equal(load_clip([output / "c_clip_l_00001_.safetensors"], embedding_folders=()).encode("a"), clip.encode("a"))
    latent = hashed((1, 4, 2, 2), 1)
    assert torch.equal(load_vae(output / "v_00001_.safetensors").decode(latent), vae.decode(latent))


def test_what_cannot_be_saved_is_named(output: Path, lane: DeviceContext) -> None:
    for call in (lambda: nodes.VAESave().save(None, "v"), lambda: nodes.CLIPSave().save(None, "c")):
        with pytest.raises(InputUnusable):
            call()


def test_sdxl_has_nine_blocks_each_way() -> None:
    names = list(ModelMergeSDXL.INPUT_TYPES()["required"])
    assert len(names) == 26
