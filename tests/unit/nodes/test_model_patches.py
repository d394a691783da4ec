"""Nodes that change what happens inside the network or after guidance, against computations of their own."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from comfy.models.loader import Checkpoint, load_checkpoint
from comfy.nodes.sampling import KSampler
from comfy.sampling.conds import CONDCrossAttn
from comfy.sampling.network_patches import hypertile, perturbed, places, token_merging
from comfy_extras.nodes_attention_multiply import CLIPAttentionMultiply, UNetCrossAttentionMultiply, UNetSelfAttentionMultiply
from comfy_extras.nodes_freelunch import FreeU, FreeU_V2
from comfy_extras.nodes_hypertile import HyperTile
from comfy_extras.nodes_ip2p import InstructPixToPixConditioning
from comfy_extras.nodes_model_downscale import PatchModelAddDownscale
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from comfy_extras.nodes_sag import SelfAttentionGuidance
from comfy_extras.nodes_tomesd import TomePatchModel
from comfy_extras.nodes_video_model import ConditioningSetAreaPercentageVideo, VideoLinearCFGGuidance, VideoTriangleCFGGuidance
from tests.fakes import cpu_context
from tests.make_checkpoint import make_sd1_checkpoint
from tests.unit.sampling.fakes import AnalyticModel

DOWN = {"downscale_after_skip": True, "downscale_method": "bicubic", "upscale_method": "bilinear"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = make_sd1_checkpoint(tmp_path_factory.mktemp("models") / "small.safetensors")
    return load_checkpoint(path, embedding_folders=())


@pytest.fixture(scope="module")
def lane() -> Any:
    return cpu_context()


def latent(model: Any, clip: Any, lane: Any, cfg: float = 4.0, texts: tuple[str, str] = ("a cat", "a dog")) -> Tensor:
    """One step from noise to the guided prediction itself: euler at its last sigma gives D."""
    with lane.activate():
        positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in texts)
        empty = {"samples": torch.zeros(1, 4, 8, 8)}
        return KSampler().sample(model, 7, 1, cfg, "euler", "normal", positive, negative, empty, 1.0)[0]["samples"]


def through(node: Any, **inputs: Any) -> Any:
    """The node's first output."""
    return node.EXECUTE_NORMALIZED(**inputs).args[0] if hasattr(node, "EXECUTE_NORMALIZED") else getattr(node(), node.FUNCTION)(**inputs)[0]


def patch_of(model: Any, name: str) -> Any:
    return model.model_options["transformer_options"]["patches"][name][-1]


CHANGES: list[tuple[Any, dict[str, Any]]] = [
    (FreeU, {"b1": 1.1, "b2": 1.2, "s1": 0.9, "s2": 0.2}),
    (FreeU_V2, {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}),
    (HyperTile, {"tile_size": 32, "swap_size": 2, "max_depth": 0, "scale_depth": False}),
    (TomePatchModel, {"ratio": 0.5}),
    (PerturbedAttentionGuidance, {"scale": 3.0}),
    (SelfAttentionGuidance, {"scale": 1.5, "blur_sigma": 2.0}),
    (PatchModelAddDownscale, {"block_number": 3, "downscale_factor": 2.0, "start_percent": 0.0, "end_percent": 0.35, **DOWN}),
    (UNetSelfAttentionMultiply, {"q": 1.5, "k": 1.0, "v": 2.0, "out": 1.0}),
    (UNetCrossAttentionMultiply, {"q": 1.0, "k": 0.5, "v": 1.0, "out": 2.0}),
]
SAME: list[tuple[Any, dict[str, Any]]] = [
    (FreeU, {"b1": 1.0, "b2": 1.0, "s1": 1.0, "s2": 1.0}),
    (FreeU_V2, {"b1": 1.0, "b2": 1.0, "s1": 1.0, "s2": 1.0}),
    (HyperTile, {"tile_size": 2048, "swap_size": 2, "max_depth": 0, "scale_depth": False}),
    (TomePatchModel, {"ratio": 0.0}),
    (PerturbedAttentionGuidance, {"scale": 0.0}),
    (SelfAttentionGuidance, {"scale": 0.0, "blur_sigma": 2.0}),
    (PatchModelAddDownscale, {"block_number": 3, "downscale_factor": 2.0, "start_percent": 1.0, "end_percent": 1.0, **DOWN}),
    (UNetSelfAttentionMultiply, {"q": 1.0, "k": 1.0, "v": 1.0, "out": 1.0}),
]


@pytest.mark.parametrize(("node", "inputs"), CHANGES, ids=[node.__name__ for node, _ in CHANGES])
def test_a_patch_changes_the_picture_and_always_alike(node: Any, inputs: dict[str, Any], checkpoint: Checkpoint, lane: Any) -> None:
    model, clip, _ = checkpoint
    plain = latent(model, clip, lane)
    changed = through(node, model=model, **inputs)
    first = latent(changed, clip, lane)
    assert bool(torch.isfinite(first).all())
    assert not torch.allclose(first, plain, atol=1e-4)
    assert torch.equal(latent(pickle.loads(pickle.dumps(changed)), clip, cpu_context()), first)
    assert torch.equal(latent(model, clip, lane), plain)  # the model that came in is as it was


@pytest.mark.parametrize(("node", "inputs"), SAME, ids=[node.__name__ for node, _ in SAME])
def test_a_patch_of_strength_zero_changes_nothing(node: Any, inputs: dict[str, Any], checkpoint: Checkpoint, lane: Any) -> None:
    model, clip, _ = checkpoint
    same = latent(through(node, model=model, **inputs), clip, lane)
    assert torch.allclose(same, latent(model, clip, lane), atol=2e-3)  # of numbers up to 200


@pytest.mark.parametrize("node", [FreeU, FreeU_V2])
def test_freeu_scales_the_backbone_and_the_skips_low_frequencies(node: Any, checkpoint: Checkpoint) -> None:
    patch = patch_of(through(node, model=checkpoint.model, b1=9.0, b2=1.4, s1=9.0, s2=0.2), "output_block_patch")
    h, skip = torch.rand(2, 64, 6, 5), torch.rand(2, 64, 6, 5)  # 64: twice the network's 32
    made_h, made_skip = patch(h, skip, {})
    spectrum = np.fft.fft2(skip.double().numpy())
    for row in (0, -1):
        for column in (0, -1):  # the frequencies -1 and 0 of both axes
            spectrum[..., row, column] *= 0.2
    assert torch.allclose(made_skip, torch.from_numpy(np.fft.ifft2(spectrum).real).float(), atol=1e-5)
    mean = h.mean(1, keepdim=True)
    stretched = torch.stack([(m - m.min()) / (m.max() - m.min()) for m in mean])
    factor = 0.4 * stretched + 1.0 if node is FreeU_V2 else 1.4
    assert torch.allclose(made_h[:, :32], h[:, :32] * factor, atol=1e-5)
    assert torch.equal(made_h[:, 32:], h[:, 32:])
    assert patch(skip[:, :32], skip, {})[1] is skip  # no stage of this width


def options(height: int, width: int, sigma: float = 1.0) -> dict[str, Any]:
    extra = {"original_shape": [1, 4, height, width], "block": ("input", 1), "block_index": 0, "sigmas": torch.tensor([sigma])}
    places.remember_step(torch.zeros(1), 32, extra)
    return extra


def test_tiles_attend_to_themselves_alone(checkpoint: Checkpoint) -> None:
    model = through(HyperTile, model=checkpoint.model, tile_size=16, swap_size=1, max_depth=0, scale_depth=False)
    extra, x = options(4, 6), torch.rand(2, 24, 8)
    cut, context, value = patch_of(model, "attn1_patch")(x, x, x, extra)
    assert cut is context is value
    assert cut.shape == (12, 4, 8)  # 2 by 3 tiles of 2 by 2
    made = patch_of(model, "attn1_output_patch")(torch.softmax(cut @ cut.transpose(1, 2), -1) @ cut, extra)
    tile = torch.tensor([(y // 2) * 3 + column // 2 for y in range(4) for column in range(6)])
    scores = (x @ x.transpose(1, 2)).masked_fill(tile[:, None] != tile, -math.inf)
    assert torch.allclose(made, torch.softmax(scores, -1) @ x, atol=1e-6)


def test_the_size_of_tiles_differs_by_step_and_deep_layers_stay_whole() -> None:
    patch = hypertile.HyperTile(tile_size=16, swap_size=3, max_depth=0, scale_depth=False)
    x = torch.rand(1, 24 * 24, 2)
    shapes = {patch.cut(x, x, x, options(24, 24, sigma))[0].shape for sigma in (1.0, 1.5, 2.0, 3.0, 4.0, 5.0)}
    assert len(shapes) > 1
    deep = torch.rand(1, 12 * 12, 2)
    assert patch.cut(deep, deep, deep, options(24, 24))[0] is deep
    assert hypertile.tile_counts(24, 2, 3) == [12, 8, 6]
    assert hypertile.tile_counts(7, 2, 3) == [1]


def test_likest_tokens_are_averaged_and_given_back(checkpoint: Checkpoint) -> None:
    model = through(TomePatchModel, model=checkpoint.model, ratio=0.5)
    extra, x = options(5, 4), torch.randn(2, 20, 8, generator=torch.Generator().manual_seed(1))
    merged = patch_of(model, "attn1_patch")(x, x, x, extra)[0]
    plan: token_merging.Merging = extra[token_merging.MERGING]
    assert merged.shape == (2, 10, 8)
    stay = plan.stay[0].tolist()
    assert {(i // 4 // 2, i % 4 // 2) for i in stay} == {(0, 0), (0, 1), (1, 0), (1, 1)}  # one of each square
    others = [i for i in range(20) if i not in stay]
    expected = torch.zeros_like(x)
    for b in range(2):
        likeness = torch.nn.functional.cosine_similarity(x[b, others][:, None], x[b, stay][None], dim=-1)
        best, into = likeness.max(-1)
        chosen = sorted(range(len(others)), key=lambda i: -float(best[i]))[:10]
        group = {place: [place] for place in stay}
        for i in chosen:
            group[stay[into[i]]].append(others[i])
        expected[b] = x[b]
        for members in group.values():
            expected[b, members] = x[b, members].mean(0)
    assert torch.allclose(patch_of(model, "attn1_output_patch")(merged, extra), expected, atol=1e-5)


def test_perturbed_attention_guides_away_from_the_identity(checkpoint: Checkpoint, lane: Any) -> None:
    model, clip, _ = checkpoint
    spoilt = model.clone()
    spoilt.set_model_attn1_replace(lambda q, k, v, extra: v, "middle", 0)
    guided = latent(through(PerturbedAttentionGuidance, model=model, scale=2.5), clip, lane)
    c, p = latent(model, clip, lane, cfg=1.0), latent(spoilt, clip, lane, cfg=1.0)
    assert not torch.allclose(c, p, atol=1e-3)
    assert torch.allclose(guided, latent(model, clip, lane) + 2.5 * (c - p), atol=1e-2)  # of numbers up to 500


def test_self_attention_guidance_blurs_where_the_model_looks(checkpoint: Checkpoint) -> None:
    node = through(SelfAttentionGuidance, model=checkpoint.model, scale=0.7, blur_sigma=1.5)
    assert node.model_options["disable_cfg1_optimization"] is True
    attend = node.model_options["transformer_options"]["patches_replace"]["attn1"][("middle", 0, 0)]
    guide = node.model_options["sampler_post_cfg_function"][0]
    seeds = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(4, 16, 8, generator=seeds) * 2 for _ in range(3))  # rows: 2 negative, 2 positive; heads: 2
    out = attend(q, k, v, {"n_heads": 2, "original_shape": [4, 4, 8, 8], "cond_or_uncond": [1, 0]})
    assert torch.allclose(out, perturbed_reference(q, k, v)[0], atol=1e-5)
    busy = perturbed_reference(q, k, v)[1][:2] > 1.0
    assert 0 < int(busy.sum()) < busy.numel()
    model, x = AnalyticModel("eps"), torch.randn(2, 4, 8, 8, generator=seeds)
    uncond = torch.randn(2, 4, 8, 8, generator=seeds)
    entry = {"model_conds": {"c_crossattn": CONDCrossAttn(torch.full((1, 3, 4), 0.3))}}
    sigma = torch.tensor([2.0, 2.0])
    args = {
        "denoised": x * 0,
        "input": x,
        "uncond_denoised": uncond,
        "uncond": [entry],
        "model": model,
        "sigma": sigma,
        "model_options": {},
    }
    made = guide(args)
    weights = torch.exp(-0.5 * (torch.arange(-4.0, 5.0) / 1.5) ** 2)
    kernel = torch.outer(weights, weights) / weights.sum() ** 2
    blurred = torch.nn.functional.conv2d(torch.nn.functional.pad(uncond, (4, 4, 4, 4), mode="reflect"), kernel.expand(4, 1, 9, 9), groups=4)
    mask = busy.reshape(2, 1, 4, 4).float().repeat_interleave(2, -1).repeat_interleave(2, -2)
    mixed = blurred * mask + uncond * (1 - mask)
    prediction = model.denoise(x + mixed - uncond, sigma.reshape(-1, 1, 1, 1), torch.tensor(0.3))
    assert torch.allclose(made, 0.7 * (mixed - prediction), atol=1e-4)
    assert torch.equal(guide(args), args["denoised"])  # what was seen is used once


def perturbed_reference(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """(attention of two heads, what each token is attended with) by loops over rows and heads."""
    out, attended = torch.zeros_like(v), torch.zeros(len(q), q.shape[1])
    for b in range(len(q)):
        for part in (slice(0, 4), slice(4, 8)):
            weights = torch.softmax(q[b, :, part] @ k[b, :, part].T / 2.0, dim=-1)
            out[b, :, part] = weights @ v[b, :, part]
            attended[b] += weights.sum(0) / 2
    return out, attended


def test_blurring_leaves_a_flat_picture_flat() -> None:
    flat = torch.full((1, 2, 3, 20), 0.4)
    assert torch.allclose(perturbed.gaussian_blur(flat, 3.0), flat, atol=1e-6)
    assert perturbed.gaussian_blur(flat, 0.0) is flat


def test_deep_shrink_acts_at_its_block_and_in_its_steps(checkpoint: Checkpoint) -> None:
    inputs = {"block_number": 3, "downscale_factor": 1.5, "start_percent": 0.2, "end_percent": 0.6, **DOWN}
    model = through(PatchModelAddDownscale, model=checkpoint.model, **inputs)
    sampling = checkpoint.model.get_model_object("model_sampling")
    shrink, grow = patch_of(model, "input_block_patch_after_skip"), patch_of(model, "output_block_patch")
    h = torch.rand(1, 3, 9, 12)
    for percent, active in ((0.1, False), (0.3, True), (0.7, False)):
        sigmas = torch.tensor([float(sampling.percent_to_sigma(percent))])
        made = shrink(h, {"block": ("input", 3), "sigmas": sigmas})
        assert (made is not h) is active
        assert shrink(h, {"block": ("input", 2), "sigmas": sigmas}) is h
        if active:
            assert torch.allclose(made, torch.nn.functional.interpolate(h, size=(6, 8), mode="bicubic"), atol=1e-6)
            again = torch.nn.functional.interpolate(made, size=(9, 12), mode="bilinear")
            assert torch.allclose(grow(made, h, {})[0], again, atol=1e-6)
    before = through(PatchModelAddDownscale, model=checkpoint.model, **{**inputs, "downscale_after_skip": False})
    assert "input_block_patch" in before.model_options["transformer_options"]["patches"]


def test_attention_weights_are_multiplied_in_the_handle_alone(checkpoint: Checkpoint, lane: Any) -> None:
    model, clip, _ = checkpoint
    assert clip is not None
    with lane.activate():
        plain, encoder = model.model_state_dict(), clip.get_sd()
        changed = through(UNetSelfAttentionMultiply, model=model, q=1.5, k=1.0, v=1.0, out=3.0).model_state_dict()
        text = through(CLIPAttentionMultiply, clip=clip, q=1.0, k=2.0, v=1.0, out=1.0).get_sd()
    for key, weight in plain.items():
        factor = 1.5 if "attn1.to_q" in key else 3.0 if "attn1.to_out" in key else 1.0
        assert torch.allclose(changed[key], weight * factor), key
    for key, weight in encoder.items():
        assert torch.allclose(text[key], weight * (2.0 if "k_proj" in key else 1.0)), key
    assert any("k_proj" in key for key in encoder)


def test_an_edit_gets_the_pictures_latent_beside_the_noise(checkpoint: Checkpoint, lane: Any) -> None:
    pixels = torch.rand(1, 17, 20, 3)
    conditioning = [[torch.zeros(1, 2, 3), {"strength": 0.5}]]
    inputs = {"positive": conditioning, "negative": conditioning, "vae": checkpoint.vae, "pixels": pixels}
    assert checkpoint.vae is not None
    with lane.activate():
        expected = checkpoint.vae.encode(pixels)
        positive, negative, empty = InstructPixToPixConditioning.EXECUTE_NORMALIZED(**inputs).args
    for made in (positive, negative):
        assert torch.equal(made[0][1]["concat_latent_image"], expected)
        assert made[0][1]["strength"] == 0.5
    assert empty["samples"].shape == expected.shape
    assert not empty["samples"].any()
    assert "concat_latent_image" not in conditioning[0][1]


@pytest.mark.parametrize(
    ("node", "scales"), [(VideoLinearCFGGuidance, [1.0, 2.0, 3.0, 4.0, 5.0]), (VideoTriangleCFGGuidance, [1.0, 3.0, 5.0, 3.0, 1.0])]
)
def test_guidance_differs_from_frame_to_frame(node: Any, scales: list[float], checkpoint: Checkpoint) -> None:
    guide = through(node, model=checkpoint.model, min_cfg=1.0).model_options["sampler_cfg_function"]
    cond, uncond = torch.rand(5, 4, 2, 2), torch.rand(5, 4, 2, 2)
    made = guide({"cond": cond, "uncond": uncond, "cond_scale": 5.0})
    for frame, scale in enumerate(scales):
        assert torch.allclose(made[frame], uncond[frame] + scale * (cond[frame] - uncond[frame]), atol=1e-5)


def test_an_area_of_a_video_has_three_axes() -> None:
    conditioning = [[torch.zeros(1, 2, 3), {}]]
    area = {"width": 0.5, "height": 0.25, "temporal": 0.75, "x": 0.1, "y": 0.2, "z": 0.3, "strength": 0.8}
    made = through(ConditioningSetAreaPercentageVideo, conditioning=conditioning, **area)[0][1]
    assert made == {"area": ("percentage", 0.75, 0.25, 0.5, 0.3, 0.2, 0.1), "strength": 0.8, "set_area_to_bounds": False}
