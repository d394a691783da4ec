"""MODEL, CLIP and VAE: small, copyable, picklable, right on any lane."""

from __future__ import annotations

import gc
import pickle
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from comfy.errors import InputUnusable, OutsideLane
from comfy.models.loader import Checkpoint, load_checkpoint
from comfy.models.patcher import ModelPatcher
from comfy.sampling.extension import CallbacksMP, PatcherInjection, WrappersMP
from comfy.weights.cache import WeightCache
from tests.fakes import cpu_context, in_threads
from tests.hashed_weights import hashed

X = hashed((2, 4, 8, 8), 1) * 3
SIGMA = torch.tensor([1.5, 7.0])
CONTEXT = hashed((2, 7, 64), 2)


def denoise(model: ModelPatcher, **kwargs: Any) -> Tensor:
    return model.model.apply_model(X, SIGMA, c_crossattn=CONTEXT, transformer_options=model.model_options["transformer_options"], **kwargs)


def results(checkpoint: Checkpoint) -> list[Tensor]:
    """One result of each handle."""
    model, clip, vae = checkpoint
    assert clip is not None
    assert vae is not None
    cond, pooled = clip.encode_from_tokens(clip.tokenize("a (small:1.2) cat"), return_pooled=True)
    return [denoise(model), cond, pooled, vae.decode(X), vae.encode(hashed((1, 16, 24, 3), 3).abs())]


def test_handles_pickle_small_without_weights_and_do_the_same_after_it(checkpoint: Checkpoint) -> None:
    with cpu_context().activate():
        before = results(checkpoint)
        text = pickle.dumps(checkpoint)  # after use: nothing of the lane goes with them
    assert len(text) < 10_000
    assert b"_rebuild_tensor" not in text
    with cpu_context().activate():
        for mine, other in zip(before, results(pickle.loads(text))):
            assert torch.equal(mine, other)


def test_two_lanes_at_once_share_one_copy_and_give_the_same_bytes(checkpoint: Checkpoint) -> None:
    weights = WeightCache(2**30)
    contexts = [cpu_context(i, weights) for i in range(2)]

    def work(index: int) -> tuple[list[Tensor], Any]:
        with contexts[index].activate():
            return results(checkpoint), checkpoint.model.model.diffusion_model

    (first, network_0), (second, network_1) = in_threads(2, work)
    for mine, other in zip(first, second):
        assert torch.equal(mine, other)
    assert network_0 is not network_1
    assert next(network_0.parameters()).data_ptr() == next(network_1.parameters()).data_ptr()
    assert weights.statistics().reads == 3


def test_outside_a_lane_a_handle_has_everything_but_its_network(checkpoint: Checkpoint) -> None:
    assert checkpoint.model.get_model_object("latent_format").scale_factor == 0.18215
    assert checkpoint.model.model.model_sampling.sigma_max > 14
    with pytest.raises(OutsideLane):
        _ = checkpoint.model.model.diffusion_model


def test_estimate_is_the_one_of_the_network(checkpoint: Checkpoint) -> None:
    with cpu_context().activate():
        model = checkpoint.model.model
        sampling = model.model_sampling
        raw = model.diffusion_model(sampling.calculate_input(SIGMA, X), sampling.timestep(SIGMA).float(), CONTEXT)
        assert torch.equal(denoise(checkpoint.model), sampling.calculate_denoised(SIGMA, raw, X))


def test_the_runner_makes_every_network_call(checkpoint: Checkpoint) -> None:
    ctx = cpu_context()
    with ctx.activate():
        denoise(checkpoint.model)
        denoise(checkpoint.model)
    assert ctx.runner.statistics().calls == 2


def test_weight_patches_belong_to_one_handle(checkpoint: Checkpoint) -> None:
    model = checkpoint.model
    key = "diffusion_model.middle_block.0.in_layers.2.weight"
    ctx = cpu_context()
    with ctx.activate():
        plain = denoise(model)
        before = ctx.resident.used_bytes
        patched = model.clone()
        delta = hashed((64, 64, 3, 3), 5)
        assert patched.add_patches({key: ("diff", (delta,)), "diffusion_model.nothing": ("diff", (delta,))}, 0.5) == [key]
        weight = patched.model_state_dict("diffusion_model.middle_block.0.in_layers.2.")[key]
        assert torch.allclose(weight, model.model_state_dict()[key] + 0.5 * delta, atol=1e-6)
        assert not torch.equal(denoise(patched), plain)
        assert torch.equal(denoise(model), plain)
        assert not patched.clone_has_same_weights(model)
        assert patched.is_clone(model)
        own = ctx.resident.used_bytes - before
        assert delta.nbytes <= own  # one changed tensor on top of the views
        other = model.model_state_dict()["diffusion_model.out.2.weight"].data_ptr()
        assert patched.model_state_dict()["diffusion_model.out.2.weight"].data_ptr() == other


def test_rows_of_a_weight_can_be_patched(checkpoint: Checkpoint) -> None:
    model = checkpoint.model.clone()
    key = "diffusion_model.time_embed.0.weight"
    model.add_patches({(key, (0, 32, 32)): ("diff", (torch.ones(32, 32),))})
    with cpu_context().activate():
        plain = checkpoint.model.model_state_dict()[key]
        change = model.model_state_dict()[key] - plain
    assert torch.allclose(change[32:64], torch.ones(32, 32), atol=1e-6)
    assert not change[:32].any()
    assert not change[64:].any()


def test_a_patch_of_another_models_weight_by_name(checkpoint: Checkpoint) -> None:
    key = "diffusion_model.time_embed.0.weight"
    model = checkpoint.model.clone()
    model.add_patches({key: checkpoint.model.get_key_patches(key)[key]}, strength_patch=0.25, strength_model=0.5)
    assert len(pickle.dumps(model)) < 10_000
    with cpu_context().activate():
        plain = checkpoint.model.model_state_dict()[key]
        assert torch.allclose(model.model_state_dict()[key], 0.75 * plain, atol=1e-6)


def test_patches_of_a_text_encoder(checkpoint: Checkpoint) -> None:
    assert checkpoint.clip is not None
    clip = checkpoint.clip.clone()
    key = "clip_l.transformer.text_model.final_layer_norm.bias"
    assert clip.add_patches({key: ("diff", (torch.ones(64),))}) == [key]
    with cpu_context().activate():
        assert torch.allclose(clip.encode("a"), checkpoint.clip.encode("a") + 1.0, atol=1e-5)


def test_object_patches_belong_to_one_handle_and_stay_with_its_clones(checkpoint: Checkpoint) -> None:
    class Silent(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros_like(x[:, :4])

    with cpu_context().activate():
        plain = denoise(checkpoint.model)
        patched = checkpoint.model.clone()
        patched.add_object_patch("diffusion_model.out", Silent())
        sampling = patched.get_model_object("model_sampling")
        assert torch.equal(denoise(patched.clone()), sampling.calculate_denoised(SIGMA, torch.zeros_like(X), X))
        assert torch.equal(denoise(checkpoint.model), plain)


def test_model_sampling_can_be_replaced(checkpoint: Checkpoint) -> None:
    patched = checkpoint.model.clone()
    other = object()
    patched.add_object_patch("model_sampling", other)
    assert patched.get_model_object("model_sampling") is other
    assert patched.model.model_sampling is other
    assert patched.clone().model.model_sampling is other
    assert checkpoint.model.model.model_sampling is not other


def test_clones_change_alone(checkpoint: Checkpoint) -> None:
    clone = checkpoint.model.clone()
    clone.set_model_sampler_post_cfg_function(lambda args: args["denoised"], disable_cfg1_optimization=True)
    clone.set_model_attn1_patch(lambda n, context, value, extra: (n, context, value))
    second = clone.clone()
    second.set_model_attn1_patch(lambda n, context, value, extra: (n, context, value))
    assert checkpoint.model.model_options == {"transformer_options": {}}
    assert clone.model_options["disable_cfg1_optimization"] is True
    assert [len(m.model_options["transformer_options"]["patches"]["attn1_patch"]) for m in (clone, second)] == [1, 2]


def test_old_cfg_functions_with_three_parameters(checkpoint: Checkpoint) -> None:
    clone = checkpoint.model.clone()
    clone.set_model_sampler_cfg_function(lambda cond, uncond, scale: uncond + scale * (cond - uncond))
    assert clone.model_options["sampler_cfg_function"]({"cond": 3.0, "uncond": 1.0, "cond_scale": 2.0}) == 5.0


@pytest.mark.parametrize("kind", [WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL])
def test_wrappers_stand_around_the_calls(checkpoint: Checkpoint, kind: str) -> None:
    clone = checkpoint.model.clone()
    with cpu_context().activate():
        plain = denoise(clone)
        clone.add_wrapper_with_key(kind, "mine", lambda executor, *args, **kwargs: executor(*args, **kwargs) * 2)
        doubled = denoise(clone)
        expected = plain * 2 if kind == WrappersMP.APPLY_MODEL else X - 2 * (X - plain)
        assert torch.allclose(doubled, expected, atol=1e-4)
        assert len(clone.get_wrappers(kind, "mine")) == 1
        clone.remove_wrappers_with_key(kind, "mine")
        assert torch.equal(denoise(clone), plain)
        assert clone.get_all_wrappers(kind) == []


def test_callbacks_and_injections_at_their_moments(checkpoint: Checkpoint) -> None:
    seen: list[str] = []
    clone = checkpoint.model.clone()
    for kind in (CallbacksMP.ON_PRE_RUN, CallbacksMP.ON_CLEANUP, CallbacksMP.ON_INJECT_MODEL, CallbacksMP.ON_EJECT_MODEL):
        clone.add_callback(kind, lambda patcher, kind=kind: seen.append(kind))
    clone.set_injections("mine", [PatcherInjection(lambda p: seen.append("in"), lambda p: seen.append("out"))])
    with cpu_context().activate():
        clone.pre_run()
        with clone.use_ejected():
            seen.append("-")
        clone.cleanup()
        assert clone.model.diffusion_model is not checkpoint.model.model.diffusion_model
    inside = ["in", CallbacksMP.ON_INJECT_MODEL]
    outside = ["out", CallbacksMP.ON_EJECT_MODEL]
    assert seen == [*inside, CallbacksMP.ON_PRE_RUN, *outside, "-", *inside, *outside, CallbacksMP.ON_CLEANUP]


def test_on_clone_sees_both(checkpoint: Checkpoint) -> None:
    seen: list[Any] = []
    model = checkpoint.model.clone()
    model.add_callback(CallbacksMP.ON_CLONE, lambda old, new: seen.append((old, new)))
    other = model.clone()
    assert seen == [(model, other)]


def test_a_dropped_handle_is_gone_at_once(checkpoint_path: Path) -> None:
    """No cycle keeps a handle, and with it patches of any size, until the collector runs."""
    model = load_checkpoint(checkpoint_path, embedding_folders=()).model
    gc.collect()
    gc.disable()
    try:
        with cpu_context().activate():
            patched = model.clone()
            patched.add_patches({"diffusion_model.out.2.bias": ("diff", (torch.ones(4),))})
            denoise(patched)
            gone = weakref.ref(patched)
            del patched
            assert gone() is None
    finally:
        gc.enable()


def test_sizes(checkpoint: Checkpoint) -> None:
    ctx = cpu_context()
    with ctx.activate():
        assert checkpoint.model.loaded_size() == 0
        checkpoint.model.load()
        assert checkpoint.model.loaded_size() == checkpoint.model.model_size()
        assert checkpoint.model.model_size() == sum(t.nbytes for t in checkpoint.model.model_state_dict().values())
        assert checkpoint.model.model_dtype() == torch.float32
        assert checkpoint.model.memory_required([2, 4, 64, 64]) == 2 * checkpoint.model.memory_required([1, 4, 64, 64])


def test_a_plain_module_can_be_held(checkpoint: Checkpoint) -> None:
    holder = ModelPatcher(nn.Linear(2, 3), torch.device("meta"), torch.device("cpu"))
    assert holder.model_size() == 9 * 4
    assert holder.clone().model is holder.model
    assert holder.is_clone(holder.clone())
    assert holder.clone().load_device == torch.device("meta")


def test_another_handle_from_the_model_of_one(checkpoint: Checkpoint) -> None:
    class Own(ModelPatcher):
        pass

    own = Own(checkpoint.model.model, checkpoint.model.load_device, checkpoint.model.offload_device)
    assert isinstance(own.clone(), Own)
    with cpu_context().activate():
        assert torch.equal(denoise(own), denoise(checkpoint.model))


def test_clip_skip_and_clones(checkpoint: Checkpoint) -> None:
    clip = checkpoint.clip
    assert clip is not None
    with cpu_context().activate():
        plain = clip.encode("a cat")
        skipped = clip.clone()
        skipped.clip_layer(-2)
        assert not torch.equal(skipped.encode("a cat"), plain)
        assert torch.equal(clip.encode("a cat"), plain)
        skipped.clip_layer(-1)
        assert torch.equal(skipped.encode("a cat"), plain)
        scheduled = clip.encode_from_tokens_scheduled(clip.tokenize("a cat"), add_dict={"width": 5})
        assert torch.equal(scheduled[0][0], plain)
        assert set(scheduled[0][1]) == {"pooled_output", "width"}
        assert clip.cond_stage_model.clip_l.transformer is not None  # type: ignore[attr-defined]


def test_tokenizer_options_stay_with_the_handle(checkpoint: Checkpoint) -> None:
    assert checkpoint.clip is not None
    clip = checkpoint.clip.clone()
    clip.set_tokenizer_option("disable_weights", True)
    assert all(weight == 1.0 for _, weight in clip.clone().tokenize("(red:1.3)")["l"][0])
    assert any(weight == 1.3 for _, weight in checkpoint.clip.tokenize("(red:1.3)")["l"][0])


def test_unusable_prompts_and_tokens(checkpoint: Checkpoint) -> None:
    clip = checkpoint.clip
    assert clip is not None
    with pytest.raises(InputUnusable):
        clip.tokenize(None)  # type: ignore[arg-type]
    with cpu_context().activate(), pytest.raises(InputUnusable):
        clip.encode_from_tokens({"g": []})
