"""Weights in every stored form give the network that their numbers describe; flags and nodes choose the form."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from comfy.errors import InputUnusable
from comfy.models import precision
from comfy.models.loader import load_clip, load_diffusion_model, load_vae
from comfy.models.patcher import ModelPatcher
from comfy.models.precision import Precision, from_flags
from comfy.models.vae import PIXEL_SPACE, VAE
from tests.fakes import cpu_context
from tests.hashed_weights import hashed
from tests.make_families import CLIP_G, CLIP_L, FAMILIES, G, L, openclip, random_weights

UNET = FAMILIES["sdxl"][0]
X, ARGS = hashed((1, 4, 8, 8), 1), {"c_crossattn": hashed((1, 7, L + G), 2), "y": hashed((1, G + 1536), 3)}
E4, E5 = torch.float8_e4m3fn, torch.float8_e5m2


def saved(path: Path, tensors: dict[str, Tensor]) -> Path:
    save_file({name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}, path)
    return path


def answer(model: ModelPatcher) -> Tensor:
    with cpu_context().activate():
        found: Tensor = model.model.apply_model(X, torch.ones(1), **ARGS)
        return found


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return {name: tensor.float() for name, tensor in random_weights(UNET, 0).items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, E4, E5])
def test_a_plain_file_in_any_type(tmp_path: Path, weights: dict[str, Tensor], dtype: torch.dtype) -> None:
    stored = {name: tensor.to(dtype) for name, tensor in weights.items()}
    model = load_diffusion_model(saved(tmp_path / "a.safetensors", stored))
    exact = load_diffusion_model(saved(tmp_path / "b.safetensors", {name: tensor.float() for name, tensor in stored.items()}))
    assert torch.equal(answer(model), answer(exact))
    with cpu_context().activate():
        assert {p.dtype for p in model.model.diffusion_model.parameters()} == {dtype if dtype.itemsize == 1 else torch.float32}


@pytest.mark.parametrize("dtype", [E4, E5])
def test_a_scaled_file_is_multiplied_out(tmp_path: Path, weights: dict[str, Tensor], dtype: torch.dtype) -> None:
    scaled, exact = {"scaled_fp8": torch.zeros(1, dtype=dtype)}, {}
    for name, tensor in weights.items():
        exact[name] = tensor
        if name.endswith("weight") and tensor.ndim == 2:
            scale = tensor.abs().max() / 100
            scaled[name] = (tensor / scale).to(dtype)
            scaled[name.removesuffix("weight") + "scale_weight"] = scale
            exact[name] = scaled[name].float() * scale
        else:
            scaled[name] = tensor
    mine = load_diffusion_model(saved(tmp_path / "a.safetensors", scaled))
    torch.testing.assert_close(answer(mine), answer(load_diffusion_model(saved(tmp_path / "b.safetensors", exact))))
    pickled = tmp_path / "c.ckpt"
    torch.save({name: tensor.float() if "scale_" in name else tensor for name, tensor in scaled.items()}, pickled)
    assert torch.equal(answer(load_diffusion_model(pickled)), answer(mine))


@pytest.mark.parametrize(("name", "dtype"), [("fp8_e4m3fn", E4), ("fp8_e4m3fn_fast", E4), ("fp8_e5m2", E5)])
def test_a_node_keeps_a_wide_file_in_eight_bit(tmp_path: Path, weights: dict[str, Tensor], name: str, dtype: torch.dtype) -> None:
    wide = saved(tmp_path / "a.safetensors", weights)
    narrow = saved(tmp_path / "b.safetensors", {key: tensor.to(dtype) for key, tensor in weights.items()})
    model = load_diffusion_model(wide, storage=name)
    assert torch.equal(answer(model), answer(load_diffusion_model(narrow)))
    assert model.model_size() * 2 == load_diffusion_model(wide).model_size()
    with pytest.raises(InputUnusable):
        load_diffusion_model(wide, storage="fp7")


def test_patches_of_eight_bit_weights_are_rounded_once(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    model = load_diffusion_model(saved(tmp_path / "a.safetensors", weights), storage="fp8_e4m3fn")
    changed = model.clone()
    key = "diffusion_model.out.2.weight"
    changed.add_patches({key: ("diff", (weights["out.2.weight"],))}, 0.5)
    with cpu_context().activate():
        plain, patched = (handle.model_state_dict()[key] for handle in (model, changed))
        assert torch.equal(patched.float(), (plain.float() + 0.5 * weights["out.2.weight"]).to(E4).float())


def test_the_flags() -> None:
    def flags(**given: bool) -> Precision:
        return from_flags(SimpleNamespace(**given))

    assert flags() == Precision()
    half, bf, full = (torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float32,)
    assert flags(fp32_unet=True) == Precision(denoiser=full)
    assert flags(bf16_unet=True, fp16_vae=True, fp32_text_enc=True) == Precision(bf, full, half)
    assert flags(force_fp32=True) == Precision(full, full, full)
    assert flags(force_fp16=True, bf16_unet=True) == Precision(bf, half)
    assert flags(fp8_e5m2_unet=True) == Precision(storage=E5)


def test_flags_without_a_form_are_told(caplog: pytest.LogCaptureFixture) -> None:
    assert from_flags(SimpleNamespace(fp64_unet=True)) == Precision()
    assert "--fp64-unet" in caplog.text


def test_the_process_precision_reaches_new_handles(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    path = saved(tmp_path / "a.safetensors", weights)
    precision.configure(Precision(denoiser=(torch.float32,), storage=E4))
    try:
        source: Any = load_diffusion_model(path).source
    finally:
        precision.configure(Precision())
    assert source.family.dtypes == source.component.dtypes == (torch.float32,)
    assert source.component.storage == E4


def test_text_encoder_files_in_either_order(tmp_path: Path) -> None:
    small = saved(tmp_path / "l.safetensors", random_weights(CLIP_L, 1))
    deep = dict(random_weights(CLIP_G, 2))
    for layer in range(3, 32):  # what makes a file CLIP-G is its number of layers
        for name in [name for name in deep if ".layers.0." in name]:
            deep[name.replace(".layers.0.", f".layers.{layer}.")] = deep[name]
    large = saved(tmp_path / "g.safetensors", openclip(deep))
    with cpu_context().activate():
        one, other = (load_clip(paths, family=None, embedding_folders=()) for paths in ([small, large], [large, small]))
        assert [stream.name for stream, _ in one.source.parts] == ["clip_l", "clip_g"]
        assert torch.equal(one.encode("a cat"), other.encode("a cat"))
        assert one.encode("a cat").shape == (1, 77, L + G)
    assert load_clip([small], family=None, embedding_folders=()).source.family.name == "SD15"
    assert load_clip([large], family=None, embedding_folders=()).source.family.name == "SDXLRefiner"


def test_pixel_space_is_the_identity() -> None:
    vae, pictures = VAE({PIXEL_SPACE: torch.ones(1)}), hashed((1, 6, 5, 3), 4).abs()
    with cpu_context().activate():
        latent = vae.encode(pictures)
        assert latent.shape == (1, 3, 6, 5)
        torch.testing.assert_close(vae.decode(latent), pictures)


def test_a_vae_file_in_sixteen_bit(tmp_path: Path) -> None:
    from tests.make_families import VAE as SIZES

    vae = load_vae(saved(tmp_path / "v.safetensors", random_weights(SIZES, 3)))
    with cpu_context().activate():
        assert vae.decode(torch.zeros(1, 4, 2, 2)).shape == (1, 16, 16, 3)
