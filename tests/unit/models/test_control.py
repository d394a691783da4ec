"""ControlNets: the layouts of their files, what they add to the network, and whom their nodes steer."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from comfy import config, folders
from comfy.cldm.cldm import ControlNet as Network
from comfy.errors import InputUnusable, ModelUnknown, WeightFileInvalid
from comfy.models import control
from comfy.models.diffusers_unet import unet_modules
from comfy.models.loader import Checkpoint, load_checkpoint
from comfy.nodes.controlnet import ControlNetApply, ControlNetApplyAdvanced, ControlNetLoader, DiffControlNetLoader
from comfy.nodes.sampling import KSampler
from tests.fakes import cpu_context
from tests.make_checkpoint import make_sd1_checkpoint

WIDTHS = (8, 8, 8, 8, 16, 16, 16)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = make_sd1_checkpoint(tmp_path_factory.mktemp("models") / "small.safetensors", dtype=torch.float32)
    return load_checkpoint(path, embedding_folders=())


@pytest.fixture(scope="module")
def lane() -> Any:
    return cpu_context()


@pytest.fixture(scope="module")
def weights(checkpoint: Checkpoint, lane: Any) -> dict[str, Tensor]:
    """Of a ControlNet that is a copy of the checkpoint's way down, with small random convolutions where it begins at zero."""
    network = Network(asdict(checkpoint.model.source.unet), 3, WIDTHS)
    seeds = torch.Generator().manual_seed(4)
    with lane.activate():
        base = checkpoint.model.model_state_dict("diffusion_model.")
    made = {}
    for name, tensor in network.state_dict().items():
        copied = base.get(f"diffusion_model.{name}")
        made[name] = torch.randn(tensor.shape, generator=seeds) * 0.2 if copied is None else copied.clone()
    return made


def to_diffusers(weights: dict[str, Tensor], checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The same under the names of most published files."""
    theirs = {ours: name for name, ours in unet_modules(checkpoint.model.source.unet)}
    theirs |= {f"zero_convs.{i}.0": f"controlnet_down_blocks.{i}" for i in range(6)}
    theirs |= {f"input_hint_block.{2 * i}": f"controlnet_cond_embedding.blocks.{i - 1}" for i in range(1, 7)}
    theirs["input_hint_block.0"] = "controlnet_cond_embedding.conv_in"
    theirs["input_hint_block.14"] = "controlnet_cond_embedding.conv_out"
    theirs["middle_block_out.0"] = "controlnet_mid_block"
    return {f"{theirs[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": tensor for name, tensor in weights.items()}


def inputs(batch: int = 2) -> dict[str, Any]:
    seeds = torch.Generator().manual_seed(9)
    return {
        "x_noisy": torch.randn(batch, 4, 8, 8, generator=seeds) * 3,
        "t": torch.full((batch,), 3.0),
        "cond": {"c_crossattn": torch.randn(batch, 5, 64, generator=seeds)},
    }


def residuals(loaded: Any, checkpoint: Checkpoint, hint: Tensor, **settings: Any) -> Any:
    made = loaded.copy().set_cond_hint(hint, **settings)
    model = checkpoint.model.model
    made.pre_run(model, model.model_sampling.percent_to_sigma)
    found = made.get_control(**inputs(), batched_number=2)
    made.cleanup()
    return found


def test_every_layout_is_the_same_network(checkpoint: Checkpoint, lane: Any, weights: dict[str, Tensor], tmp_path: Path) -> None:
    hint = torch.rand(1, 3, 64, 64)
    network = Network(asdict(checkpoint.model.source.unet), 3, WIDTHS)
    network.load_state_dict(weights)
    given = inputs()
    layouts = {
        "ldm": weights,
        "prefixed": {f"control_model.{name}": tensor for name, tensor in weights.items()},
        "diffusers": to_diffusers(weights, checkpoint),
    }
    for name, tensors in layouts.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
        loaded = control.load_controlnet(tmp_path / f"{name}.safetensors")
        with lane.activate():
            sampling = checkpoint.model.model.model_sampling
            expected = network(
                sampling.calculate_input(given["t"], given["x_noisy"]),
                hint.repeat(2, 1, 1, 1),
                sampling.timestep(given["t"]).float(),
                given["cond"]["c_crossattn"],
            )
            found = residuals(pickle.loads(pickle.dumps(loaded)), checkpoint, hint)
        assert [len(found[place]) for place in ("input", "middle", "output")] == [0, 1, 4]
        for place in ("middle", "output"):
            for mine, theirs in zip(found[place], expected[place]):
                assert torch.allclose(mine, theirs, atol=1e-4), name


def test_a_copy_without_hint_gives_the_networks_own_features(checkpoint: Checkpoint, lane: Any, weights: dict[str, Tensor]) -> None:
    """With convolutions that do nothing, what is added is what the UNet itself carries over: its skip tensors."""
    network, plain = Network(asdict(checkpoint.model.source.unet), 3, WIDTHS), dict(weights)
    for name, tensor in plain.items():
        if name.startswith(("zero_convs.", "middle_block_out.")):
            plain[name] = torch.eye(len(tensor)).reshape(tensor.shape) if tensor.ndim == 4 else torch.zeros_like(tensor)
        elif name.startswith("input_hint_block.14."):
            plain[name] = torch.zeros_like(tensor)
    network.load_state_dict(plain)
    skips: list[Tensor] = []

    def look(h: Tensor, options: dict[str, Any]) -> Tensor:
        skips.append(h)
        return h

    given = inputs()
    steps, prompt = torch.tensor([500.0, 500.0]), given["cond"]["c_crossattn"]
    with lane.activate():
        checkpoint.model.model.diffusion_model(
            given["x_noisy"], steps, prompt, transformer_options={"patches": {"input_block_patch": [look]}}
        )
        found = network(given["x_noisy"], torch.rand(2, 3, 64, 64), steps, prompt)["output"]
    assert len(found) == len(skips) == 4
    for mine, theirs in zip(found, skips):
        assert torch.allclose(mine, theirs, atol=1e-4)


@pytest.fixture
def loaded(weights: dict[str, Tensor], tmp_path: Path) -> Iterator[Any]:
    folders.configure(config.load(["--base-directory", str(tmp_path)], {}))
    (tmp_path / "models" / "controlnet").mkdir(parents=True, exist_ok=True)
    save_file(weights, tmp_path / "models" / "controlnet" / "net.safetensors")
    assert ControlNetLoader.INPUT_TYPES()["required"]["control_net_name"] == (["net.safetensors"],)
    yield ControlNetLoader().load_controlnet("net.safetensors")[0]
    folders.configure(config.Config())


def test_strength_chain_and_range(checkpoint: Checkpoint, lane: Any, loaded: Any) -> None:
    hint, other = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 32, 48)
    with lane.activate():
        whole, half = residuals(loaded, checkpoint, hint), residuals(loaded, checkpoint, hint, strength=0.5)
        second = residuals(loaded, checkpoint, other)
        late = residuals(loaded, checkpoint, hint, timestep_percent_range=(0.9, 1.0))
        first = loaded.copy().set_cond_hint(hint)
        chained = loaded.copy().set_cond_hint(other).set_previous_controlnet(first)
        model = checkpoint.model.model
        chained.pre_run(model, model.model_sampling.percent_to_sigma)
        both = chained.get_control(**inputs(), batched_number=2)
        assert len(chained.get_models()) == 2
        chained.cleanup()
    assert late is None
    assert first.cond_hint is chained.cond_hint is None
    for i, tensor in enumerate(whole["output"]):
        assert torch.allclose(half["output"][i], tensor * 0.5, atol=1e-6)
        assert torch.allclose(both["output"][i], tensor + second["output"][i], atol=1e-5)
    loaded.global_average_pooling = True
    with lane.activate():
        pooled = residuals(loaded, checkpoint, hint)["output"][1]
    assert torch.allclose(pooled, whole["output"][1].mean((2, 3), keepdim=True).expand_as(pooled), atol=1e-5)


def test_each_row_gets_its_picture() -> None:
    pictures = torch.arange(2.0).reshape(2, 1, 1, 1)
    assert control.broadcast_image_to(pictures, 6, 2).flatten().tolist() == [0, 1, 0, 0, 1, 0]
    assert control.broadcast_image_to(pictures, 1, 1).flatten().tolist() == [0]


def sampled(checkpoint: Checkpoint, lane: Any, steer: Any, steps: int = 2) -> Tensor:
    model, clip, _ = checkpoint
    assert clip is not None
    with lane.activate():
        texts = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a cat", "a dog")]
        positive, negative = steer(*texts)
        empty = {"samples": torch.zeros(1, 4, 8, 8)}
        return KSampler().sample(model, 5, steps, 4.0, "euler", "normal", positive, negative, empty, 1.0)[0]["samples"]


def test_nodes_steer_the_sampling(checkpoint: Checkpoint, lane: Any, loaded: Any) -> None:
    image = torch.rand(1, 64, 64, 3)

    def old(positive: Any, negative: Any) -> Any:
        return ControlNetApply().apply_controlnet(positive, loaded, image, 0.8)[0], negative

    def advanced(strength: float, start: float = 0.0, end: float = 1.0) -> Any:
        return lambda positive, negative: ControlNetApplyAdvanced().apply_controlnet(
            positive, negative, loaded, image, strength, start, end
        )

    def positive_alone(positive: Any, negative: Any) -> Any:
        return advanced(0.8)(positive, negative)[0], negative

    plain = sampled(checkpoint, lane, lambda positive, negative: (positive, negative))
    steered = sampled(checkpoint, lane, old)
    assert bool(torch.isfinite(steered).all())
    assert not torch.allclose(steered, plain, atol=1e-3)
    assert torch.equal(sampled(checkpoint, cpu_context(), old), steered)
    assert torch.allclose(sampled(checkpoint, lane, advanced(0.8)), steered, atol=1e-3)  # both sides, as the old node
    assert not torch.allclose(sampled(checkpoint, lane, positive_alone), steered, atol=1e-3)
    assert torch.equal(sampled(checkpoint, lane, advanced(0.0)), plain)
    assert torch.equal(sampled(checkpoint, lane, advanced(0.8, 1.0, 1.0)), plain)  # not a step lies in this range
    early = sampled(checkpoint, lane, advanced(0.8, 0.0, 0.01))
    assert not torch.allclose(early, plain, atol=1e-3)
    assert not torch.allclose(early, steered, atol=1e-3)


def test_entries_share_what_came_before_and_stay_as_they_were(loaded: Any) -> None:
    conditioning = [[torch.zeros(1, 2, 3), {"strength": 0.5}]]
    positive, negative = ControlNetApplyAdvanced().apply_controlnet(
        conditioning, conditioning, loaded, torch.rand(1, 8, 8, 4), 0.7, 0.1, 0.6
    )
    made = positive[0][1]["control"]
    assert made is negative[0][1]["control"]
    assert (made.strength, made.timestep_percent_range, made.cond_hint_original.shape) == (0.7, (0.1, 0.6), (1, 3, 8, 8))
    assert conditioning[0][1] == {"strength": 0.5}
    again = ControlNetApply().apply_controlnet(positive, loaded, torch.rand(1, 8, 8, 3), 1.0)[0]
    assert again[0][1]["control"].previous_controlnet is made
    assert (again[0][1]["control_apply_to_uncond"], positive[0][1]["control_apply_to_uncond"]) == (True, False)


def test_differences_are_added_to_the_models_weights(
    checkpoint: Checkpoint, lane: Any, weights: dict[str, Tensor], loaded: Any, tmp_path: Path
) -> None:
    with lane.activate():
        base = checkpoint.model.model_state_dict("diffusion_model.")
    less = {
        name: tensor - base[f"diffusion_model.{name}"] if f"diffusion_model.{name}" in base else tensor for name, tensor in weights.items()
    }
    save_file({**less, "difference": torch.zeros(0)}, tmp_path / "models" / "controlnet" / "diff.safetensors")
    diff = DiffControlNetLoader().load_controlnet(checkpoint.model, "diff.safetensors")[0]
    hint = torch.rand(1, 3, 64, 64)
    with lane.activate():
        expected, found = residuals(loaded, checkpoint, hint), residuals(diff, checkpoint, hint)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(found["output"], expected["output"]))


@pytest.mark.parametrize("spoil", ["other", "lora", "missing", "shape"])
def test_other_files_are_refused(spoil: str, weights: dict[str, Tensor], tmp_path: Path) -> None:
    given = dict(weights)
    if spoil == "other":
        given = {"controlnet_blocks.0.weight": torch.zeros(2, 2)}
    elif spoil == "lora":
        given["lora_controlnet"] = torch.zeros(1)
    elif spoil == "missing":
        given = {name: tensor for name, tensor in given.items() if "input_blocks.0." not in name}
    else:
        given["zero_convs.1.0.weight"] = torch.zeros(3, 3, 1, 1)
    save_file(given, tmp_path / "net.safetensors")
    with pytest.raises(ModelUnknown if spoil in ("other", "lora") else WeightFileInvalid):
        control.load_controlnet(tmp_path / "net.safetensors")


@pytest.mark.parametrize("image", [torch.rand(1, 8, 8, 1), torch.rand(8, 8, 3), torch.rand(1, 0, 8, 3)])
def test_what_is_no_picture_is_refused(image: Tensor, loaded: Any) -> None:
    with pytest.raises(InputUnusable):
        ControlNetApply().apply_controlnet([[torch.zeros(1, 2, 3), {}]], loaded, image, 1.0)
    with pytest.raises(InputUnusable):
        ControlNetApply().apply_controlnet([[torch.zeros(1, 2, 3), {}]], None, torch.rand(1, 8, 8, 3), 1.0)
