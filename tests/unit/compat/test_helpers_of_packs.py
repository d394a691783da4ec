"""Edge helpers that stand nowhere else: rounding to 8 bit, models from state dicts, what is on the device, versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import comfy.float
import comfy.model_management
import comfy.options
import comfyui_version
from comfy import folders
from comfy.compat import from_state_dict
from comfy.config import VERSION, Config
from comfy.errors import InputUnusable, ModelUnknown
from comfy.models.loader import load_checkpoint
from tests.fakes import cpu_context
from tests.make_checkpoint import make_sd1_checkpoint


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_stochastic_rounding_goes_to_a_neighbour_and_keeps_the_mean(dtype: torch.dtype) -> None:
    value = torch.full((20000,), 1.03)
    rounded = comfy.float.stochastic_rounding(value, dtype, seed=5)
    assert rounded.dtype is dtype
    step = {torch.float8_e4m3fn: 0.125, torch.float8_e5m2: 0.25}[dtype]
    assert set(rounded.float().unique().tolist()) == {1.0, 1.0 + step}
    assert float(rounded.float().mean()) == pytest.approx(1.03, abs=0.003)
    again = comfy.float.stochastic_rounding(value, dtype, seed=5)
    assert torch.equal(rounded.float(), again.float())
    assert not torch.equal(rounded.float(), comfy.float.stochastic_rounding(value, dtype, seed=6).float())


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_every_number_of_the_format_rounds_to_itself(dtype: torch.dtype) -> None:
    every = torch.arange(256, dtype=torch.int16).to(torch.uint8).view(dtype).float()
    finite = every[torch.isfinite(every)]
    assert torch.equal(comfy.float.stochastic_rounding(finite, dtype, seed=1).float(), finite)


def test_what_is_too_large_becomes_the_largest_and_other_dtypes_round_to_nearest() -> None:
    largest = torch.finfo(torch.float8_e4m3fn).max
    assert comfy.float.stochastic_rounding(torch.tensor([1e9, -1e9]), torch.float8_e4m3fn).float().tolist() == [largest, -largest]
    value = torch.tensor([1.0009765])
    assert torch.equal(comfy.float.stochastic_rounding(value, torch.bfloat16), value.to(torch.bfloat16))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sd1_checkpoint(tmp_path_factory.mktemp("models") / "tiny.safetensors", channel_mult=(1,), clip_layers=1)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(folders, "_current", folders.Folders(Config(base_dir=tmp_path, temp_dir=tmp_path / "temp")))
    return tmp_path


def test_a_models_tensors_load_as_the_model_of_their_file(place: Path, tiny: Path) -> None:
    import comfy.sd
    import comfy.utils

    tensors = comfy.utils.load_torch_file(tiny)
    model, clip, vae, vision = from_state_dict.load_state_dict_guess_config(tensors, embedding_directory=[])
    assert vision is None
    prefix = "model.diffusion_model."
    bare = from_state_dict.load_diffusion_model_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
    with cpu_context().activate():
        x, sigma, context = torch.zeros(1, 4, 8, 8), torch.tensor([1.0]), torch.zeros(1, 77, 64)
        expected = load_checkpoint(tiny, embedding_folders=()).model.model.apply_model(x, sigma, c_crossattn=context)
        for loaded in (model, bare):
            assert torch.equal(loaded.model.apply_model(x, sigma, c_crossattn=context), expected)
        assert clip.encode("cat").shape[-1] == 64
        assert vae.decode(x).shape == (1, 64, 64, 3)


def test_equal_tensors_are_one_file_and_tied_ones_are_kept(place: Path) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    first = from_state_dict.as_file({"a": weight, "b": weight})
    assert from_state_dict.as_file({"b": weight.clone(), "a": weight.clone()}) == first
    assert from_state_dict.as_file({"a": weight + 1, "b": weight}) != first
    with pytest.raises(InputUnusable):
        from_state_dict.as_file({"a": 1})  # type: ignore[dict-item]


def test_models_that_sampling_brought_are_listed_for_their_lane_alone(tiny: Path) -> None:
    model = load_checkpoint(tiny, embedding_folders=()).model
    assert comfy.model_management.loaded_models() == []
    first, second = cpu_context(0), cpu_context(1)
    with first.activate():
        comfy.model_management.load_models_gpu([model])
        model.load()
        assert comfy.model_management.loaded_models() == [model]
        (entry,) = comfy.model_management.current_loaded_models
        assert (entry.model, entry.device) == (model, torch.device("cpu"))
        assert entry.model_memory() == entry.model_loaded_memory() > 0
        with second.activate():
            assert comfy.model_management.loaded_models() == []
        assert entry.model_unload()
        assert comfy.model_management.loaded_models() == []


def test_weights_put_into_a_clip_are_this_handles_alone(tiny: Path) -> None:
    clip: Any = load_checkpoint(tiny, embedding_folders=()).clip
    with cpu_context().activate():
        before = clip.encode("cat")
        key = next(name for name in clip.get_sd() if name.endswith("final_layer_norm.weight"))
        other = clip.clone()
        missing, unexpected = other.load_sd({key: torch.zeros_like(clip.get_sd()[key]), "nonsense": torch.zeros(1)})
        assert unexpected == ["nonsense"]
        assert key not in missing
        assert not torch.equal(other.encode("cat"), before)
        assert torch.equal(clip.encode("cat"), before)


def test_a_models_family_is_known_by_the_class_that_packs_compare_with(tiny: Path) -> None:
    import comfy.model_base
    from comfy.models.base import BaseModel, DenoiserSource
    from comfy.models.family import FAMILIES

    loaded = load_checkpoint(tiny, embedding_folders=())
    source = loaded.model.source
    assert isinstance(source, DenoiserSource)
    found = {}
    for name in ("SD15", "SDXL", "SSD1B", "SDXLRefiner"):
        model = BaseModel(DenoiserSource(FAMILIES[name], source.component))
        found[name] = [kind for kind in ("BaseModel", "SDXL", "SDXLRefiner", "Flux") if isinstance(model, getattr(comfy.model_base, kind))]
    assert found == {
        "SD15": ["BaseModel"],
        "SDXL": ["BaseModel", "SDXL"],
        "SSD1B": ["BaseModel", "SDXL"],
        "SDXLRefiner": ["BaseModel", "SDXLRefiner"],
    }

    class Mine(comfy.model_base.SDXL):
        pass

    mine = Mine(source)
    assert isinstance(mine, comfy.model_base.SDXL)
    assert not isinstance(BaseModel(DenoiserSource(FAMILIES["SDXL"], source.component)), Mine)


def test_diffusers_names_of_a_unet(tiny: Path) -> None:
    import comfy.utils

    loaded = load_checkpoint(tiny, embedding_folders=())
    names = comfy.utils.unet_to_diffusers(loaded.model.model.model_config.unet_config)
    assert names["down_blocks.0.resnets.0.conv1.weight"] == "input_blocks.1.0.in_layers.2.weight"
    assert names["conv_out.bias"] == "out.2.bias"
    with cpu_context().activate():
        present = {key.removeprefix("diffusion_model.") for key in loaded.model.model_state_dict()}
    assert present - set(names.values()) == set()
    with pytest.raises(InputUnusable):
        comfy.utils.unet_to_diffusers({"in_channels": 4})


def test_small_names() -> None:
    assert comfyui_version.__version__ == VERSION
    comfy.options.enable_args_parsing()
    assert comfy.options.args_parsing
    comfy.options.enable_args_parsing(False)
    assert comfy.model_management.is_autocast_enabled() is False


def test_tensors_that_are_no_upscale_model_are_refused_by_the_old_loader_too(place: Path) -> None:
    from comfy_extras.chainner_models.model_loading import load_state_dict

    with pytest.raises(ModelUnknown):
        load_state_dict({"some.weight": torch.zeros(3)})
