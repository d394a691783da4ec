"""LoRA on handles: what each lane computes, what it copies, and that the shared weights stay as they are."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from comfy import folders
from comfy.device.context import DeviceContext
from comfy.models.loader import Checkpoint, load_checkpoint
from comfy.models.lora import file_tensors
from comfy.models.lora.apply import with_lora
from comfy.nodes.lora import LoraLoader, LoraLoaderModelOnly
from comfy.weights.cache import WeightCache
from tests.fakes import cpu_context, in_threads
from tests.hashed_weights import hashed
from tests.make_checkpoint import make_sd1_checkpoint

X, SIGMA, CONTEXT = hashed((1, 4, 8, 8), 1) * 3, torch.tensor([1.5]), hashed((1, 7, 64), 2)
UNET_NAME, UNET_KEY = (
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_q",
    "middle_block.1.transformer_blocks.0.attn2.to_q.weight",
)
TEXT_NAME, TEXT_KEY = "lora_te_text_model_encoder_layers_0_mlp_fc1", "text_model.encoder.layers.0.mlp.fc1.weight"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return load_checkpoint(make_sd1_checkpoint(tmp_path_factory.mktemp("models") / "small.safetensors"), embedding_folders=())


def lora_file(path: Path, salt: int) -> Path:
    tensors = {
        f"{UNET_NAME}.lora_up.weight": hashed((64, 4), salt) * 0.5,
        f"{UNET_NAME}.lora_down.weight": hashed((4, 64), salt + 1) * 0.5,
        f"{UNET_NAME}.alpha": torch.tensor(2.0),
        f"{TEXT_NAME}.lora_up.weight": hashed((256, 2), salt + 2),
        f"{TEXT_NAME}.lora_down.weight": hashed((2, 64), salt + 3),
    }
    save_file({name: tensor.half() for name, tensor in tensors.items()}, path)
    return path


@pytest.fixture(scope="module")
def loras(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("loras")
    return [lora_file(folder / f"{i}.safetensors", 10 * i + 5) for i in range(3)]


def loaded(checkpoint: Checkpoint, path: Path, model: float = 1.0, clip: float = 1.0) -> Checkpoint:
    return Checkpoint(*with_lora(checkpoint.model, checkpoint.clip, file_tensors(str(path)), model, clip), checkpoint.vae)


def answers(checkpoint: Checkpoint) -> list[Tensor]:
    assert checkpoint.clip is not None
    return [checkpoint.model.model.apply_model(X, SIGMA, c_crossattn=CONTEXT), checkpoint.clip.encode("a cat")]


def delta(path: Path, name: str) -> Tensor:
    found = {key: value.float() for key, value in load_file(path).items()}
    up, down = found[f"{name}.lora_up.weight"], found[f"{name}.lora_down.weight"]
    return up @ down * (float(found.get(f"{name}.alpha", torch.tensor(down.shape[0]))) / down.shape[0])


def test_strengths_stack_in_order_and_may_be_negative(checkpoint: Checkpoint, loras: list[Path]) -> None:
    both = loaded(loaded(checkpoint, loras[0], 0.7, -0.5), loras[1], -0.3, 2.0)
    assert both.clip is not None
    with cpu_context().activate():
        plain, changed = checkpoint.model.model_state_dict(), both.model.model_state_dict()
        expected = plain["diffusion_model." + UNET_KEY] + 0.7 * delta(loras[0], UNET_NAME) - 0.3 * delta(loras[1], UNET_NAME)
        torch.testing.assert_close(changed["diffusion_model." + UNET_KEY], expected)
        text = checkpoint.clip.get_sd()["clip_l.transformer." + TEXT_KEY]  # type: ignore[union-attr]
        expected = text - 0.5 * delta(loras[0], TEXT_NAME) + 2.0 * delta(loras[1], TEXT_NAME)
        torch.testing.assert_close(both.clip.get_sd()["clip_l.transformer." + TEXT_KEY], expected)


def test_a_cpu_lane_copies_the_changed_weights_alone(checkpoint: Checkpoint, loras: list[Path]) -> None:
    changed, lane = loaded(checkpoint, loras[0]), cpu_context()
    with lane.activate():
        plain, patched = checkpoint.model.model_state_dict(), changed.model.model_state_dict()
        own = [name for name in plain if plain[name].data_ptr() != patched[name].data_ptr()]
        assert own == ["diffusion_model." + UNET_KEY]
        lane.unload()
        assert lane.resident.used_bytes == 0
    lane.weights.check()
    assert all(row.leases == 0 for row in lane.weights.statistics().rows)


def test_a_file_is_read_once_for_all_its_tensors_and_only_when_needed(checkpoint: Checkpoint, loras: list[Path]) -> None:
    lane = cpu_context()
    changed = loaded(checkpoint, loras[0])
    assert lane.weights.statistics().reads == 0
    with lane.activate():
        answers(changed)
    rows = [row for row in lane.weights.statistics().rows if row.component == "lora"]
    assert [(row.file_name, row.leases) for row in rows] == [(loras[0].name, 0)]
    assert lane.weights.statistics().reads == 3  # denoiser, text encoder, LoRA


def test_the_same_lora_loaded_again_finds_the_same_weights(checkpoint: Checkpoint, loras: list[Path]) -> None:
    lane = cpu_context()
    with lane.activate():
        answers(loaded(checkpoint, loras[0], 0.5, 0.5))
        loads = lane.resident.statistics().loads
        answers(loaded(checkpoint, loras[0], 0.5, 0.5))
        assert lane.resident.statistics().loads == loads
        answers(loaded(checkpoint, loras[0], 0.6, 0.5))
        assert lane.resident.statistics().loads == loads + 1


def test_lanes_with_different_loras_at_once_while_a_third_switches(checkpoint: Checkpoint, loras: list[Path]) -> None:
    handles = [loaded(checkpoint, path) for path in loras]
    expected = []
    for handle in [checkpoint, *handles]:
        with cpu_context().activate():
            expected.append(answers(handle))
    assert all(not torch.equal(a, b) for one, other in itertools.pairwise(expected) for a, b in zip(one, other))
    weights = WeightCache(2**30)
    lanes = [cpu_context(i, weights) for i in range(3)]

    def run(lane: int) -> None:
        ctx: DeviceContext = lanes[lane]
        with ctx.activate():
            for turn in range(4):
                which = lane if lane < 2 else turn - 1
                for mine, right in zip(answers(handles[which] if which >= 0 else checkpoint), expected[which + 1]):
                    assert torch.equal(mine, right)
            ctx.resident.check()

    in_threads(3, run)
    weights.check()
    assert weights.statistics().reads == 5  # two networks, three LoRAs


def test_handles_pickle_without_the_weights_of_the_lora(checkpoint: Checkpoint, loras: list[Path]) -> None:
    changed = loaded(checkpoint, loras[0])
    data = pickle.dumps(changed)
    assert len(data) < 40_000
    with cpu_context().activate():
        right = answers(changed)
    with cpu_context().activate():
        for mine, expected in zip(answers(pickle.loads(data)), right):
            assert torch.equal(mine, expected)


def test_nodes(checkpoint: Checkpoint, loras: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Here:
        def full_path_or_raise(self, kind: str, name: str) -> str:
            assert (kind, name) == ("loras", "my.safetensors")
            return str(loras[0])

    monkeypatch.setattr(folders, "current", Here)
    model, clip = LoraLoader().load_lora(checkpoint.model, checkpoint.clip, "my.safetensors", 0.5, 0.25)
    (alone,) = LoraLoaderModelOnly().load_lora_model_only(checkpoint.model, "my.safetensors", 0.5)
    assert model.clone_has_same_weights(alone)
    assert not clip.patcher.clone_has_same_weights(checkpoint.clip.patcher)  # type: ignore[union-attr]
    assert LoraLoader().load_lora(checkpoint.model, checkpoint.clip, "my.safetensors", 0, 0) == (checkpoint.model, checkpoint.clip)
