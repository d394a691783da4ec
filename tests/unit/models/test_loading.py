"""Files -> handles: what is read when, and what each bad file says."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import comfy.sd
from comfy.errors import ModelUnknown, WeightFileInvalid, WeightFileMissing
from comfy.models.loader import load_checkpoint, load_clip, load_diffusion_model, load_vae
from comfy.models.random_checkpoint import POSITION_IDS
from comfy.weights.cache import WeightCache
from tests.fakes import cpu_context, make_raw_file

UNET, VAE, CLIP = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."


@pytest.fixture(scope="module")
def tensors(checkpoint_path: Path) -> dict[str, Tensor]:
    return load_file(checkpoint_path)


def saved(path: Path, tensors: dict[str, Tensor]) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def test_no_tensor_is_read_before_a_lane_needs_it(checkpoint_path: Path) -> None:
    reads: list[str] = []

    def fill(slab: Any) -> None:
        from comfy.weights.fill import fill_slab

        reads.append(slab.key.component)
        fill_slab(slab)

    ctx = cpu_context(weights=WeightCache(2**30, fill=fill))
    model, clip, vae = load_checkpoint(checkpoint_path, embedding_folders=())
    assert clip is not None
    assert vae is not None
    assert reads == []
    with ctx.activate():
        _ = model.model.diffusion_model
        vae.decode(torch.zeros(1, 4, 2, 2))
        clip.encode("a")
    assert reads == ["denoiser", "vae", "clip_l"]


def test_weights_are_those_of_the_file(checkpoint_path: Path, tensors: dict[str, Tensor]) -> None:
    model, clip, vae = load_checkpoint(checkpoint_path, embedding_folders=())
    assert clip is not None
    assert vae is not None
    with cpu_context().activate():
        found = {
            **{f"model.{name}": t for name, t in model.model_state_dict().items()},
            **{VAE + name: t for name, t in vae.get_sd().items()},
            **{f"cond_stage_model.{name.removeprefix('clip_l.')}": t for name, t in clip.get_sd().items()},
        }
        assert set(found) == set(tensors) - {POSITION_IDS}
        for name, tensor in found.items():
            assert torch.equal(tensor, tensors[name].float()), name


def test_old_files_without_the_text_model_level(tmp_path: Path, tensors: dict[str, Tensor], checkpoint_path: Path) -> None:
    old = {name.replace(CLIP + "text_model.", CLIP): tensor for name, tensor in tensors.items()}
    clip = load_checkpoint(saved(tmp_path / "old.safetensors", old), embedding_folders=()).clip
    new = load_checkpoint(checkpoint_path, embedding_folders=()).clip
    assert clip is not None
    assert new is not None
    with cpu_context().activate():
        assert torch.equal(clip.encode("a cat"), new.encode("a cat"))


def test_a_pickled_checkpoint_has_the_same_picture(tmp_path: Path, tensors: dict[str, Tensor], checkpoint_path: Path) -> None:
    torch.save({"state_dict": tensors, "global_step": 5}, tmp_path / "a.ckpt")
    latent = torch.linspace(-1, 1, 4 * 4 * 4).view(1, 4, 4, 4)
    pictures = []
    for path in (tmp_path / "a.ckpt", checkpoint_path):
        vae = load_checkpoint(path, embedding_folders=()).vae
        assert vae is not None
        with cpu_context().activate():
            pictures.append(vae.decode(latent))
    assert torch.equal(*pictures)


def test_parts_in_files_of_their_own(tmp_path: Path, tensors: dict[str, Tensor], checkpoint: Any) -> None:
    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    unet = load_diffusion_model(saved(tmp_path / "unet.safetensors", part(UNET)))
    vae = load_vae(saved(tmp_path / "vae.safetensors", part(VAE)))
    clip = load_clip([saved(tmp_path / "clip.safetensors", part(CLIP))], embedding_folders=())
    with cpu_context().activate():
        assert torch.equal(vae.decode(torch.ones(1, 4, 2, 2)), checkpoint.vae.decode(torch.ones(1, 4, 2, 2)))
        assert torch.equal(clip.encode("x"), checkpoint.clip.encode("x"))
        x, t, context = torch.ones(1, 4, 4, 4), torch.ones(1), torch.ones(1, 3, 64)
        mine, whole = (m.model.apply_model(x, t, c_crossattn=context) for m in (unet, checkpoint.model))
        assert torch.equal(mine, whole)


def test_a_checkpoint_without_text_encoder_and_vae(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    only = {name: tensor for name, tensor in tensors.items() if name.startswith(UNET)}
    assert load_checkpoint(saved(tmp_path / "a.safetensors", only), embedding_folders=())[1:] == (None, None)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (UNET + "time_embed.0.weight", (128, 31)),
        (UNET + "middle_block.1.proj_in.weight", (64, 64, 3, 3)),
        (VAE + "decoder.mid.attn_1.q.weight", (32, 64, 1, 1)),
        (VAE + "post_quant_conv.bias", (5,)),
        (CLIP + "text_model.encoder.layers.1.mlp.fc1.weight", (255, 64)),
    ],
)
def test_a_tensor_of_another_shape_is_refused_at_once(
    tmp_path: Path, tensors: dict[str, Tensor], name: str, shape: tuple[int, ...]
) -> None:
    path = saved(tmp_path / "bad.safetensors", {**tensors, name: torch.zeros(shape)})
    with pytest.raises(WeightFileInvalid) as caught:
        load_checkpoint(path)
    assert caught.value.facts["file"] == "bad.safetensors"
    assert caught.value.facts["tensor"] == name
    assert caught.value.facts["shape"] == list(shape)


def test_axes_of_length_one_do_not_matter(tmp_path: Path, tensors: dict[str, Tensor], checkpoint: Any) -> None:
    name = VAE + "decoder.mid.attn_1.q.weight"
    vae = load_checkpoint(saved(tmp_path / "a.safetensors", {**tensors, name: tensors[name][:, :, 0, 0]}), embedding_folders=()).vae
    assert vae is not None
    with cpu_context().activate():
        assert torch.equal(vae.decode(torch.ones(1, 4, 2, 2)), checkpoint.vae.decode(torch.ones(1, 4, 2, 2)))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WeightFileMissing):
        load_checkpoint(tmp_path / "no.safetensors")


def test_truncated_file(tmp_path: Path, checkpoint_path: Path) -> None:
    whole = checkpoint_path.read_bytes()
    for length in (4, 100, len(whole) - 1):
        (tmp_path / "cut.safetensors").write_bytes(whole[:length])
        with pytest.raises(WeightFileInvalid):
            load_checkpoint(tmp_path / "cut.safetensors")


def test_lying_header(tmp_path: Path) -> None:
    lie = {"model.diffusion_model.input_blocks.0.0.weight": {"dtype": "F16", "shape": [32, 4, 3, 3], "data_offsets": [0, 10]}}
    with pytest.raises(WeightFileInvalid):
        load_checkpoint(make_raw_file(tmp_path / "lie.safetensors", lie, b"0" * 10))


class Attack:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "evil.ckpt").write_bytes(pickle.dumps(Attack(tmp_path / "ran")))
    with pytest.raises(WeightFileInvalid):
        load_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "ran").exists()


def test_a_file_of_no_known_family(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.safetensors", {"a.b": torch.ones(2)})
    with pytest.raises(ModelUnknown):
        load_checkpoint(path)
    with pytest.raises(RuntimeError, match="could not detect model type"):
        comfy.sd.load_checkpoint_guess_config(str(path))


def test_wanted_parts_alone(checkpoint_path: Path) -> None:
    model, clip, vae, vision = comfy.sd.load_checkpoint_guess_config(str(checkpoint_path), output_vae=False, output_model=False)
    assert (model, vae, vision) == (None, None, None)
    assert clip is not None
