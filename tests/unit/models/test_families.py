"""Each family of the SD kind loads from its own key layout, samples and decodes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from comfy.errors import InputUnusable
from comfy.models.base import DenoiserSource
from comfy.models.diffusers_unet import unet_modules
from comfy.models.family import UNetConfig
from comfy.models.loader import Checkpoint, load_checkpoint, load_clip, load_diffusion_model
from comfy.models.patcher import ModelPatcher
from comfy.nodes.sampling import KSampler
from tests.fakes import cpu_context
from tests.hashed_weights import hashed
from tests.make_families import CLIP_G, FAMILIES, G, L, family_tensors, make_family_checkpoint, openclip, random_weights

SAMPLING = {"eps": "EPS", "v_prediction": "V_PREDICTION", "edm": "EDM", "v_prediction_edm": "V_PREDICTION_EDM"}


def source(model: ModelPatcher) -> DenoiserSource:
    assert isinstance(model.source, DenoiserSource)
    return model.source


def picture(checkpoint: Checkpoint) -> Tensor:
    model, clip, vae = checkpoint
    assert clip is not None
    assert vae is not None
    positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a (red:1.3) cat", ""))
    latent = KSampler().sample(model, 1, 2, 4.0, "euler", "normal", positive, negative, {"samples": torch.zeros(1, 4, 8, 8)}, 1.0)[0]
    return vae.decode(latent["samples"])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_makes_a_picture_from_its_own_layout(name: str, tmp_path: Path) -> None:
    unet, _, _, (family, sampling) = FAMILIES[name]
    checkpoint = load_checkpoint(make_family_checkpoint(tmp_path / "a.safetensors", name), embedding_folders=())
    assert (source(checkpoint.model).family.name, source(checkpoint.model).family.sampling) == (family, sampling)
    assert source(checkpoint.model).unet == unet
    assert checkpoint.model.model.model_type.name == SAMPLING[sampling]
    with cpu_context().activate():
        found = picture(checkpoint)
    assert found.shape == (1, 64, 64, 3)
    assert bool(torch.isfinite(found).all())


def test_zero_terminal_snr_and_sigma_limits_come_from_the_file(tmp_path: Path) -> None:
    zsnr = load_checkpoint(make_family_checkpoint(tmp_path / "v.safetensors", "sdxl_v"), embedding_folders=()).model.model
    assert float(zsnr.model_sampling.sigma_max) > 4000
    edm = load_checkpoint(make_family_checkpoint(tmp_path / "e.safetensors", "cosxl"), embedding_folders=()).model.model
    assert float(edm.model_sampling.sigma_max) == pytest.approx(120.0)
    play = load_checkpoint(make_family_checkpoint(tmp_path / "p.safetensors", "playground"), embedding_folders=()).model.model
    assert float(play.model_sampling.sigma_max) == pytest.approx(80.0)
    assert type(play.latent_format).__name__ == "SDXL_Playground_2_5"


def test_openclip_and_hugging_face_layouts_are_one_encoder(tmp_path: Path) -> None:
    weights = random_weights(CLIP_G, 5)
    for name, tensors in (("hf", weights), ("open", openclip(weights))):
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / f"{name}.safetensors")
    with cpu_context().activate():
        found = [load_clip([tmp_path / f"{name}.safetensors"], family="SD20", embedding_folders=()) for name in ("hf", "open")]
        (cond, pooled), (other, other_pooled) = [clip.encode_from_tokens(clip.tokenize("a cat"), return_pooled=True) for clip in found]
    assert torch.equal(cond, other)
    assert torch.equal(pooled, other_pooled)


def test_a_unet_in_diffusers_layout_is_the_same_network(tmp_path: Path) -> None:
    for name in ("sdxl", "koala_700m", "sd2_v", "vega"):
        unet = FAMILIES[name][0]
        prefix = "model.diffusion_model."
        ours = {key.removeprefix(prefix): tensor for key, tensor in family_tensors(name).items() if key.startswith(prefix)}
        save_file({key: tensor.contiguous() for key, tensor in ours.items()}, tmp_path / "ours.safetensors")
        save_file(in_diffusers_layout(unet, ours), tmp_path / "theirs.safetensors")
        mine, other = (load_diffusion_model(tmp_path / f"{which}.safetensors") for which in ("ours", "theirs"))
        assert source(mine).family == source(other).family
        args = {"c_crossattn": hashed((1, 7, unet.context_dim or 0), 2)}
        if unet.adm_in_channels:
            args["y"] = hashed((1, unet.adm_in_channels), 3)
        with cpu_context().activate():
            x = hashed((1, 4, 8, 8), 1)
            assert torch.equal(mine.model.apply_model(x, torch.ones(1), **args), other.model.apply_model(x, torch.ones(1), **args))


def in_diffusers_layout(config: UNetConfig, ours: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for theirs, name in unet_modules(config):
        for ending in (".weight", ".bias"):
            if name + ending in ours and not theirs.startswith("class_embedding"):
                found[theirs + ending] = ours[name + ending].clone()
    assert len(found) == len(ours)
    return found


def test_a_conditioning_of_another_family_is_refused(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(make_family_checkpoint(tmp_path / "a.safetensors", "sdxl"), embedding_folders=())
    model = checkpoint.model.model
    for pooled in (None, torch.zeros(1, L), torch.zeros(1, 5 + G)):
        with pytest.raises(InputUnusable):
            model.extra_conds(pooled_output=pooled, noise=torch.zeros(1, 4, 8, 8), width=64, height=64)
    vector = model.extra_conds(pooled_output=torch.zeros(1, G), noise=torch.zeros(1, 4, 8, 8), width=64, height=64)["y"].cond
    assert vector.shape == (1, G + 1536)
