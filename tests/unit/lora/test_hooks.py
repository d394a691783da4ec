"""Hooks change the weights of the evaluation that they belong to, by the strength of the step, and of no other."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from comfy import folders
from comfy.config import Config
from comfy.errors import InputUnusable
from comfy.models.hooks import HookGroup, HookKeyframe, HookKeyframeGroup, WeightHook
from comfy.models.loader import Checkpoint, load_checkpoint
from comfy.models.lora import file_tensors
from comfy.models.lora.apply import with_lora
from comfy.nodes.sampling import KSampler
from comfy.weights.header import open_index
from comfy_extras import making_hooks as nodes
from comfy_extras.nodes_hooks import ConditioningSetProperties
from tests.fakes import cpu_context
from tests.make_checkpoint import make_sd1_checkpoint
from tests.unit.lora.test_handles import CONTEXT, SIGMA, X, lora_file


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("base")
    for kind in ("checkpoints", "loras"):
        (root / "models" / kind).mkdir(parents=True)
    for seed in (0, 1):
        make_sd1_checkpoint(root / "models" / "checkpoints" / f"{seed}.safetensors", seed=seed)
    lora_file(root / "models" / "loras" / "a.safetensors", 5)
    return root


@pytest.fixture(autouse=True)
def here(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = folders.Folders(Config(base_dir=base, output_dir=base, input_dir=base, temp_dir=base, user_dir=base), base)
    monkeypatch.setattr(folders, "current", lambda: made)


@pytest.fixture
def checkpoint(base: Path) -> Checkpoint:
    return load_checkpoint(base / "models" / "checkpoints" / "0.safetensors", embedding_folders=())


def lora_hook(base: Path, strength: float, *keyframes: HookKeyframe) -> HookGroup:
    file = open_index(base / "models" / "loras" / "a.safetensors").identity
    return HookGroup((WeightHook(strength, lora=file, keyframes=HookKeyframeGroup(keyframes)),))


def evaluated(model: Any, hooks: HookGroup | None, sigma: Tensor = SIGMA) -> Tensor:
    model.model.apply_hooks(hooks, sigma)
    found: Tensor = model.model.apply_model(X, SIGMA, c_crossattn=CONTEXT)
    return found


def test_a_hook_is_its_lora_for_one_evaluation(base: Path, checkpoint: Checkpoint) -> None:
    model = checkpoint.model
    hooks = pickle.loads(pickle.dumps(lora_hook(base, 0.5)))
    with cpu_context().activate():
        plain = evaluated(model, None)
        changed, _ = with_lora(model, None, file_tensors(str(base / "models" / "loras" / "a.safetensors")), 0.5, 0)
        assert torch.equal(evaluated(model, hooks), evaluated(changed, None))
        assert not torch.equal(evaluated(model, hooks), plain)
        assert torch.equal(evaluated(model, None), plain)
        assert torch.equal(evaluated(model, lora_hook(base, 0.0)), plain)


def test_strengths_follow_the_keyframes(base: Path, checkpoint: Checkpoint) -> None:
    model = checkpoint.model
    hooks = lora_hook(base, 2.0, HookKeyframe(0.5, 0.0), HookKeyframe(0.0, 0.5))
    half = torch.tensor([float(model.model.model_sampling.percent_to_sigma(0.5))])
    with cpu_context().activate():
        plain = evaluated(model, None)
        assert torch.equal(evaluated(model, hooks, half * 1.01), evaluated(model, lora_hook(base, 1.0)))
        assert torch.equal(evaluated(model, hooks, half * 0.99), plain)


def test_another_model_as_a_hook(checkpoint: Checkpoint, base: Path) -> None:
    other = load_checkpoint(base / "models" / "checkpoints" / "1.safetensors", embedding_folders=())
    with cpu_context().activate():
        (hooks,) = nodes.CreateHookModelAsLoraModelOnly().create_hook_model_only("1.safetensors", 1.0)
        torch.testing.assert_close(evaluated(checkpoint.model, hooks), evaluated(other.model, None))


def test_sampling_evaluates_each_conditioning_with_its_own_weights(checkpoint: Checkpoint, base: Path) -> None:
    model, clip, _ = checkpoint
    assert clip is not None
    file = file_tensors(str(base / "models" / "loras" / "a.safetensors"))

    def run(handle: Any, positive: Any, negative: Any) -> Tensor:
        empty = {"samples": torch.zeros(1, 4, 8, 8)}
        found: Tensor = KSampler().sample(handle, 3, 2, 5.0, "euler", "normal", positive, negative, empty, 1.0)[0]["samples"]
        return found

    with cpu_context().activate():
        positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a cat", "dog"))
        (hooks,) = nodes.CreateHookLora().create_hook("a.safetensors", 0.5, 0.0)
        (hooked,) = ConditioningSetProperties().apply(positive, 1.0, "default", hooks=hooks)
        (other,) = ConditioningSetProperties().apply(negative, 1.0, "default", hooks=hooks)
        changed, _ = with_lora(model, None, file, 0.5, 0)
        both, plain = run(model, hooked, other), run(model, positive, negative)
        torch.testing.assert_close(both, run(changed, positive, negative))
        one = run(model, hooked, negative)
        assert not torch.equal(one, both)
        assert not torch.equal(one, plain)
        assert torch.equal(run(model, positive, negative), plain)


def test_keyframe_nodes() -> None:
    made = nodes.CreateHookKeyframesInterpolated().create_hook_keyframes(0.0, 1.0, "ease_in", 0.0, 1.0, 3, True)[0]
    assert [(k.start_percent, k.strength) for k in made.keyframes] == [(0.0, 0.0), (0.5, 0.25), (1.0, 1.0)]
    made = nodes.CreateHookKeyframe().create_hook_keyframe(0.3, 0.25, made)[0]
    assert [k.start_percent for k in made.keyframes] == [0.0, 0.25, 0.5, 1.0]
    floats = nodes.CreateHookKeyframesFromFloats().create_hook_keyframes([1.0, 0.0], 0.2, 0.6, False)[0]
    assert floats.keyframes == (HookKeyframe(1.0, 0.2), HookKeyframe(0.0, 0.6))
    with pytest.raises(InputUnusable):
        nodes.CreateHookKeyframesFromFloats().create_hook_keyframes(["x"], 0.0, 1.0, False)
    for how, middle in (("linear", 0.5), ("ease_in", 0.25), ("ease_out", 0.75), ("ease_in_out", 0.5)):
        assert [nodes.eased(t, how) for t in (0.0, 0.5, 1.0)] == [0.0, middle, 1.0]


def test_groups_combine_without_doubles(base: Path) -> None:
    one, two = lora_hook(base, 0.5), lora_hook(base, 0.25)
    combine: Any = nodes.HOOK_NODES["CombineHooks4"]()
    assert combine.combine_hooks(hooks_A=one, hooks_C=two)[0].hooks == (*one.hooks, *two.hooks)
    assert combine.combine_hooks(hooks_A=one, hooks_B=one)[0] == one
    assert combine.combine_hooks() == (None,)
    frames = HookKeyframeGroup((HookKeyframe(0.5),))
    assert nodes.SetHookKeyframes().set_hook_keyframes(one, frames)[0].hooks[0].keyframes == frames
    assert nodes.SetHookKeyframes().set_hook_keyframes(one)[0] == one
