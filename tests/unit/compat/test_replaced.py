"""What packs replace at run time (contract: custom-nodes.md section 5): a test per row, through the names that packs assign.

Each assigns as a pack does, samples with a real (tiny) model on a CPU lane, and sees that the core ran what was assigned;
put back, the picture is the one of before.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import comfy.cli_args
import comfy.k_diffusion.sampling
import comfy.ldm.modules.attention as attention
import comfy.ldm.modules.diffusionmodules.openaimodel as openaimodel
import comfy.lora
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sample
import comfy.samplers
import comfy.sd
import comfy.supported_models
import comfy.utils
import folder_paths
import latent_preview
import nodes
from comfy import folders
from comfy.config import Config, LatentPreviewMethod
from comfy.device.context import DeviceContext
from comfy.sampling import preview
from tests.fakes import cpu_context
from tests.make_checkpoint import make_sd1_checkpoint


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_sd1_checkpoint(tmp_path_factory.mktemp("models") / "tiny.safetensors", channel_mult=(1,), clip_layers=1))


@pytest.fixture(scope="module")
def loaded(path: str) -> Any:
    return comfy.sd.load_checkpoint_guess_config(path, embedding_directory=[])


@pytest.fixture(scope="module")
def lane() -> DeviceContext:
    """One for all tests: the model is brought there once."""
    return cpu_context()


@pytest.fixture(autouse=True)
def in_a_lane(lane: DeviceContext) -> Iterator[None]:
    with lane.activate():
        yield


COND = [[torch.linspace(-1, 1, 77 * 64).reshape(1, 77, 64), {}]]


def sampled(loaded: Any, sampler: str = "euler", model: Any = None) -> torch.Tensor:
    """The latent of a KSampler node: (1, 4, 8, 8)."""
    empty = {"samples": torch.zeros(1, 4, 8, 8)}
    node = nodes.NODE_CLASS_MAPPINGS["KSampler"]()
    (latent,) = node.sample(model or loaded[0], 7, 1, 2.0, sampler, "normal", COND, COND, empty)
    found: torch.Tensor = latent["samples"]
    return found


@pytest.fixture(scope="module")
def expected(loaded: Any, lane: DeviceContext) -> torch.Tensor:
    """What a run gives when nothing is replaced."""
    with lane.activate():
        return sampled(loaded)


def spy(owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace `owner.name` by a function that notes its call and goes on with what stood there; pytest puts that back."""
    before, calls = getattr(owner, name), []

    def noted(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return before(*args, **kwargs)

    monkeypatch.setattr(owner, name, noted)
    return calls


FUNCTIONS: list[tuple[Any, str]] = [
    (comfy.samplers, "sampling_function"),
    (comfy.samplers, "calc_cond_batch"),
    (comfy.samplers, "cfg_function"),
    (comfy.samplers, "sample"),
    (comfy.samplers, "calculate_sigmas"),
    (comfy.sample, "sample"),
    (comfy.sample, "prepare_noise"),
    (comfy.model_management, "load_models_gpu"),
    (openaimodel, "forward_timestep_embed"),
    (openaimodel, "apply_control"),
    (attention.BasicTransformerBlock, "forward"),
    (torch.nn.GroupNorm, "forward"),
    (comfy.samplers.KSampler, "sample"),
    (comfy.samplers.Sampler, "max_denoise"),
    (latent_preview, "get_previewer"),
    (latent_preview, "prepare_callback"),
]


@pytest.mark.parametrize(("owner", "name"), FUNCTIONS, ids=[f"{getattr(owner, '__name__', owner)}.{name}" for owner, name in FUNCTIONS])
def test_a_run_calls_what_was_assigned(loaded: Any, expected: torch.Tensor, owner: Any, name: str) -> None:
    original = getattr(owner, name)
    with pytest.MonkeyPatch.context() as patch:
        calls = spy(owner, name, patch)
        assert torch.equal(sampled(loaded), expected)
    assert calls
    assert getattr(owner, name) is original


def test_what_the_assigned_function_gives_is_what_the_picture_is_made_of(
    loaded: Any, expected: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(comfy.samplers, "sampling_function", lambda model, x, *args, **kwargs: torch.zeros_like(x))
        assert bool((sampled(loaded) == 0).all())  # an x0 of zero is where the walk ends
    assert torch.equal(sampled(loaded), expected)


def test_ksampler_class_and_its_lists(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    class Mine(comfy.samplers.KSampler):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made.append("mine")
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(comfy.samplers, "KSampler", Mine)
    monkeypatch.setattr(comfy.samplers.KSampler, "SCHEDULERS", [*comfy.samplers.KSampler.SCHEDULERS, "of a pack"])
    sampled(loaded)
    assert made == ["mine"]


def test_a_scheduler_list_assigned_while_sampling_is_what_a_name_is_checked_with(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comfy.samplers.KSampler, "SCHEDULERS", ["normal", "of a pack"])
    before = comfy.samplers.calculate_sigmas

    def theirs(table: Any, name: str, steps: int) -> torch.Tensor:
        return before(table, "karras" if name == "of a pack" else name, steps)

    monkeypatch.setattr(comfy.samplers, "calculate_sigmas", theirs)
    arguments = (loaded[0], 7, 2, 1.0, "euler")
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    (mine,) = nodes.common_ksampler(*arguments, "of a pack", COND, COND, latent)
    monkeypatch.undo()
    (karras,) = nodes.common_ksampler(*arguments, "karras", COND, COND, latent)
    assert torch.equal(mine["samples"], karras["samples"])


def test_default_noise_sampler(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = spy(comfy.k_diffusion.sampling, "default_noise_sampler", monkeypatch)
    sampled(loaded, "dpm_2_ancestral")
    assert calls


def test_sample_custom(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = spy(comfy.sample, "sample_custom", monkeypatch)
    unet, latent = loaded[0], torch.zeros(1, 4, 8, 8)
    sigmas = comfy.samplers.calculate_sigmas(unet.get_model_object("model_sampling"), "normal", 1)
    comfy.sample.sample_custom(unet, latent + 1, 1.0, comfy.samplers.sampler_object("euler"), sigmas, COND, COND, latent)
    assert calls == ["sample_custom"]


def test_group_norm_of_a_casting_network(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = spy(comfy.ops.disable_weight_init.GroupNorm, "forward_comfy_cast_weights", monkeypatch)
    layer = comfy.ops.manual_cast.GroupNorm(2, 4)
    layer.load_state_dict({"weight": torch.ones(4), "bias": torch.zeros(4)})
    layer(torch.zeros(1, 4, 2, 2))
    assert calls


def test_weight_patching(loaded: Any, expected: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = spy(comfy.lora, "calculate_weight", monkeypatch)
    model = loaded[0].clone()
    key = "diffusion_model.out.2.bias"
    assert model.add_patches({key: ("diff", (torch.ones(4),))}, 0.5) == [key]
    assert not torch.equal(sampled(loaded, model=model), expected)
    assert calls == ["calculate_weight"]


def test_memory_required_of_the_lanes_model(loaded: Any) -> None:
    model = loaded[0].clone()
    model.model.memory_required = lambda shape: 123
    assert model.memory_required((1, 4, 8, 8)) == 123


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("get_torch_device", torch.device("meta")),
        ("text_encoder_device", torch.device("meta")),
        ("unet_offload_device", torch.device("meta")),
        ("unet_dtype", torch.bfloat16),
        ("soft_empty_cache", None),
        ("current_stream", None),
    ],
)
def test_devices_and_dtypes_that_other_packs_ask_for(name: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    original = getattr(comfy.model_management, name)
    monkeypatch.setattr(comfy.model_management, name, lambda *args, **kwargs: value)
    assert getattr(comfy.model_management, name)(torch.device("cpu")) is value
    if name == "get_torch_device":
        assert comfy.model_management.text_encoder_device() is value  # inside the module as well
    monkeypatch.undo()
    assert getattr(comfy.model_management, name) is original


def test_partially_load_on_the_class(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = spy(comfy.model_patcher.ModelPatcher, "partially_load", monkeypatch)
    assert loaded[0].clone().partially_load(torch.device("cpu")) > 0
    assert calls


def test_load_torch_file(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comfy.utils, "load_torch_file", lambda *args, **kwargs: {"mine": 1})
    assert comfy.utils.load_torch_file(path) == {"mine": 1}
    monkeypatch.undo()
    assert "mine" not in comfy.utils.load_torch_file(path)


def test_the_preview_method_is_read_at_each_run(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "_method", lambda: comfy.cli_args.args.preview_method)  # as main.py sets it
    latent_format = loaded[0].get_model_object("latent_format")
    assert latent_preview.get_previewer(torch.device("cpu"), latent_format) is None
    monkeypatch.setattr(comfy.cli_args.args, "preview_method", LatentPreviewMethod.Latent2RGB)
    found: Any = latent_preview.get_previewer(torch.device("cpu"), latent_format)
    assert found.decode_latent_to_preview(torch.zeros(1, 4, 8, 8)).size == (8, 8)


def test_folder_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_current", folders.Folders(Config(base_dir=tmp_path)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/a.bin").touch()
    table: Any = getattr(folder_paths, "folder_names_and_paths")  # noqa: B009 - a live attribute, which no checker sees
    table["mine"] = ([str(tmp_path / "mine")], {".bin"})
    assert folder_paths.get_filename_list("mine") == ["a.bin"]
    table["mine"][1].clear()
    (tmp_path / "mine/b.other").touch()
    assert folder_paths.get_filename_list("mine") == ["a.bin", "b.other"]
    table["odd"] = [(), {".x"}]  # a list, with a tuple of folders: seen in packs
    assert folder_paths.get_filename_list("odd") == []


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [
        (comfy.utils, "PROGRESS_BAR_ENABLED", False),
        (comfy.supported_models, "models", []),
        (comfy.k_diffusion.sampling, "torch", object()),
        (comfy.samplers, "CFGNoisePredictor", object),
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(value)[:24],
)
def test_names_that_the_core_does_not_read_take_an_assignment_and_change_nothing(
    loaded: Any, expected: torch.Tensor, owner: Any, name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The core draws no bars, detects by structure, and takes its noise from private generators: docs/custom-nodes.md."""
    monkeypatch.setattr(owner, name, value, raising=False)
    assert getattr(owner, name) is value
    assert torch.equal(sampled(loaded), expected)
