"""Loader nodes turn names of the model folders into handles; whole folders in diffusers' layout too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from comfy import folders
from comfy.config import Config
from comfy.errors import ComfyError, FileMissing, InputUnusable, WeightFileMissing
from comfy.models.loader import load_checkpoint, load_diffusers
from comfy.nodes import loaders
from tests.fakes import cpu_context
from tests.hashed_weights import hashed
from tests.make_families import CLIP_G, CLIP_L, FAMILIES, VAE, G, L, family_tensors, openclip, random_weights
from tests.unit.models.test_families import in_diffusers_layout

UNET = "model.diffusion_model."


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor.contiguous() for name, tensor in tensors.items() if name.startswith(prefix)}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("base")
    whole = family_tensors("sdxl")
    for kind, name, tensors in (
        ("checkpoints", "whole", whole),
        ("diffusion_models", "unet", part(whole, UNET)),
        ("text_encoders", "l", part(whole, "conditioner.embedders.0.transformer.")),
        ("vae", "vae", part(whole, "first_stage_model.")),
    ):
        (root / "models" / kind).mkdir(parents=True, exist_ok=True)
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, root / "models" / kind / f"{name}.safetensors")
    model = root / "models" / "diffusers" / "mine"
    for name, tensors in (
        ("unet/diffusion_pytorch_model", in_diffusers_layout(FAMILIES["sdxl"][0], part(whole, UNET))),
        ("text_encoder/model", random_weights(CLIP_L, 1)),
        ("text_encoder_2/model", random_weights(CLIP_G, 1)),
        ("vae/diffusion_pytorch_model", random_weights(VAE, 2)),
    ):
        (model / name).parent.mkdir(parents=True)
        save_file(tensors, model / f"{name}.safetensors")
    (model / "model_index.json").write_text("{}")
    return root


@pytest.fixture(autouse=True)
def here(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(base_dir=base, output_dir=base / "out", input_dir=base, temp_dir=base / "temp", user_dir=base / "user")
    made = folders.Folders(config, base)
    monkeypatch.setattr(folders, "current", lambda: made)


def test_parts_from_their_folders() -> None:
    assert loaders.UNETLoader.INPUT_TYPES()["required"]["unet_name"][0] == ["unet.safetensors"]
    assert loaders.VAELoader.INPUT_TYPES()["required"]["vae_name"][0] == ["vae.safetensors", "pixel_space"]
    whole, _, vae = loaders.CheckpointLoaderSimple().load_checkpoint("whole.safetensors")
    (alone,), (own,) = loaders.UNETLoader().load_unet("unet.safetensors", "default"), loaders.VAELoader().load_vae("vae.safetensors")
    (clip,) = loaders.CLIPLoader().load_clip("l.safetensors", "stable_diffusion")
    args = {"c_crossattn": hashed((1, 7, L + G), 2), "y": hashed((1, G + 1536), 3)}
    with cpu_context().activate():
        x = hashed((1, 4, 8, 8), 1)
        assert torch.equal(alone.model.apply_model(x, torch.ones(1), **args), whole.model.apply_model(x, torch.ones(1), **args))
        assert torch.equal(own.decode(x[..., :2, :2]), vae.decode(x[..., :2, :2]))
        assert clip.encode("a").shape == (1, 77, L)
    assert loaders.VAELoader().load_vae("pixel_space")[0].latent_channels == 3


def test_a_folder_of_diffusers(base: Path) -> None:
    assert loaders.DiffusersLoader.INPUT_TYPES()["required"]["model_path"][0] == ["mine"]
    model, clip, vae = loaders.DiffusersLoader().load_checkpoint("mine")
    whole = load_checkpoint(base / "models" / "checkpoints" / "whole.safetensors", embedding_folders=())
    assert clip is not None
    assert whole.clip is not None
    assert whole.vae is not None
    with cpu_context().activate():
        args = {"c_crossattn": hashed((1, 7, L + G), 2), "y": hashed((1, G + 1536), 3)}
        x = hashed((1, 4, 8, 8), 1)
        assert torch.equal(model.model.apply_model(x, torch.ones(1), **args), whole.model.model.apply_model(x, torch.ones(1), **args))
        assert torch.equal(clip.encode("a cat"), whole.clip.encode("a cat"))
        assert torch.equal(vae.decode(x[..., :2, :2]), whole.vae.decode(x[..., :2, :2]))
    assert openclip(random_weights(CLIP_G, 1)).keys() != random_weights(CLIP_G, 1).keys()


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        loaders.DiffusersLoader().load_checkpoint("../mine")
    with pytest.raises(WeightFileMissing, match="unet"):
        load_diffusers(tmp_path)
    with pytest.raises(InputUnusable):
        loaders.CLIPLoader().load_clip("l.safetensors", "flux")
    with pytest.raises(ComfyError):
        loaders.UNETLoader().load_unet("no.safetensors", "default")
