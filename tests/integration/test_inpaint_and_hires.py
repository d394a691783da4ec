"""An inpainting checkpoint (9 channels in) from picture and mask to latent, tiles against the whole, and a second, bigger pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from comfy.device.context import DeviceContext
from comfy.models.loader import Checkpoint, load_checkpoint
from comfy.nodes.builtin import register_builtin
from comfy.nodes.registry import NodeRegistry
from comfy.weights.cache import WeightCache
from tests.fakes import cpu_context, in_threads
from tests.hashed_weights import hashed
from tests.make_checkpoint import make_sd1_checkpoint

REGISTRY = NodeRegistry()
register_builtin(REGISTRY)

SCALE = 0.18215  # of SD1.x latents
POSITIVE, NEGATIVE = ([[hashed((1, 5, 32), salt), {}]] for salt in (1, 2))
PIXELS = hashed((1, 64, 64, 3), 3).abs()
#: the middle is to be painted, softly at its edge: 1 from 24 to 40, 0.3 around it
MASK = torch.zeros(1, 64, 64)
MASK[:, 16:48, 16:48] = 0.3
MASK[:, 24:40, 24:40] = 1.0


def run(name: str, **inputs: Any) -> tuple[Any, ...]:
    """What the node gives, V1 or V3."""
    cls = REGISTRY.classes[name]
    if hasattr(cls, "define_schema"):
        result: tuple[Any, ...] = cls.PREPARE_CLASS_CLONE({}).EXECUTE_NORMALIZED(**inputs).args
        return result
    return tuple(getattr(cls(), cls.FUNCTION)(**inputs))


def sample(model: Any, latent: Any, positive: Any = POSITIVE, negative: Any = NEGATIVE, denoise: float = 1.0, steps: int = 3) -> Any:
    names = {"sampler_name": "euler", "scheduler": "normal"}
    conds = {"positive": positive, "negative": negative}
    return run("KSampler", model=model, seed=7, steps=steps, cfg=2.0, **names, **conds, latent_image=latent, denoise=denoise)[0]


@pytest.fixture(scope="module", params=[4, 9], ids=["plain", "inpainting"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path: Path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    make_sd1_checkpoint(path, channel_mult=(1,), context=32, clip_layers=1, in_channels=request.param)
    return load_checkpoint(path, embedding_folders=())


@pytest.fixture
def lane() -> Iterator[DeviceContext]:
    with cpu_context().activate() as context:
        yield context


def fed(model: Any, seen: list[Tensor]) -> Any:
    """Keep the latent that the calling lane's network is given; the handle's `remove` ends it."""
    return model.model.diffusion_model.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))


def masked(way: str, model: Any, vae: Any) -> tuple[Any, Any, Any, Any]:
    """(model, positive, negative, latent) as a workflow of this kind makes them."""
    if way == "VAEEncodeForInpaint":
        latent = run("VAEEncodeForInpaint", pixels=PIXELS, vae=vae, mask=MASK, grow_mask_by=0)[0]
        return model, POSITIVE, NEGATIVE, latent
    if way == "SetLatentNoiseMask":
        encoded = run("VAEEncode", pixels=PIXELS, vae=vae)[0]
        return model, POSITIVE, NEGATIVE, run("SetLatentNoiseMask", samples=encoded, mask=MASK)[0]
    conds = {"positive": POSITIVE, "negative": NEGATIVE}
    made = run("InpaintModelConditioning", **conds, vae=vae, pixels=PIXELS, mask=MASK, noise_mask=True)
    if way == "DifferentialDiffusion":
        (model,) = run("DifferentialDiffusion", model=model, strength=1.0)
    return model, *made


WAYS = ["VAEEncodeForInpaint", "SetLatentNoiseMask", "InpaintModelConditioning", "DifferentialDiffusion"]


@pytest.mark.parametrize("way", WAYS)
def test_inpainting_keeps_what_the_mask_leaves_out(checkpoint: Checkpoint, lane: DeviceContext, way: str) -> None:
    model, positive, negative, latent = masked(way, checkpoint.model, checkpoint.vae)
    seen: list[Tensor] = []
    hook = fed(model, seen)
    try:
        out = sample(model, latent, positive, negative)["samples"]
    finally:
        hook.remove()
    original = latent["samples"]
    outside = torch.ones(8, 8, dtype=torch.bool)
    outside[1:7, 1:7] = False  # bilinear resizing softens one cell around the mask's edge
    kept, found = original[..., outside], out[..., outside]
    if way == "DifferentialDiffusion":  # its last evaluation, at threshold 0, is free everywhere
        free = sample(checkpoint.model, {"samples": original}, positive, negative)["samples"][..., outside]
        assert (found - kept).abs().mean() < (free - kept).abs().mean() / 4
    else:
        assert torch.allclose(found, kept, atol=1e-4)
    assert not torch.allclose(out[..., 3:5, 3:5], original[..., 3:5, 3:5], atol=1e-2)
    channels = seen[0].shape[1]
    assert {tensor.shape[1] for tensor in seen} == {channels}
    if channels == 9:
        beside_the_noise(seen, way, checkpoint.vae, original)


def beside_the_noise(seen: list[Tensor], way: str, vae: Any, original: Tensor) -> None:
    """Channel 4 is the rounded mask, 5 to 8 the scaled latent beside it: at every evaluation, for both sides."""
    expected = torch.zeros(8, 8)
    expected[3:5, 3:5] = 1.0
    if way in ("InpaintModelConditioning", "DifferentialDiffusion"):
        grey = torch.where(MASK[..., None].round() > 0, 0.5, PIXELS)
        beside = run("VAEEncode", pixels=grey, vae=vae)[0]["samples"] * SCALE
    else:
        beside = original * SCALE
    for tensor in seen:
        assert torch.equal(tensor[:, 4], expected.expand(len(tensor), 8, 8).to(tensor.dtype))
        assert torch.allclose(tensor[:, 5:].float(), beside.expand(len(tensor), 4, 8, 8), atol=1e-3)


@pytest.mark.parametrize("way", WAYS)
def test_inpainting_has_the_same_bytes_on_two_busy_lanes(checkpoint: Checkpoint, way: str) -> None:
    weights = WeightCache(2**30)

    def on(lane: int) -> Tensor:
        with cpu_context(lane, weights).activate():
            model, positive, negative, latent = masked(way, checkpoint.model, checkpoint.vae)
            return sample(model, latent, positive, negative)["samples"]

    alone = on(0)
    assert all(torch.equal(alone, other) for other in in_threads(2, on))


def test_an_inpainting_model_without_a_mask_repaints_grey(checkpoint: Checkpoint, lane: DeviceContext) -> None:
    seen: list[Tensor] = []
    hook = fed(checkpoint.model, seen)
    try:
        out = sample(checkpoint.model, {"samples": torch.zeros(1, 4, 8, 8)})["samples"]
    finally:
        hook.remove()
    assert bool(out.isfinite().all())
    if seen[0].shape[1] == 9:
        assert bool((seen[0][:, 4] == 1).all())
        blank = torch.tensor([0.8223, -0.6876, 0.6364, 0.1380]).view(1, 4, 1, 1)
        assert torch.allclose(seen[0][:, 5:].float(), blank.expand(len(seen[0]), 4, 8, 8), atol=1e-3)


def test_a_tiled_picture_is_near_the_whole_and_equal_in_one_tile(checkpoint: Checkpoint, lane: DeviceContext) -> None:
    """A random VAE sees a tile's own statistics: the bound is a quarter of the way to the picture of another latent."""
    latent, other = ({"samples": hashed((1, 4, 24, 24), salt)} for salt in (21, 22))
    tiles = {"temporal_size": 64, "temporal_overlap": 8}
    whole, elsewhere = (run("VAEDecode", samples=one, vae=checkpoint.vae)[0] for one in (latent, other))
    tiled, one_tile = (
        run("VAEDecodeTiled", samples=latent, vae=checkpoint.vae, tile_size=size, overlap=32, **tiles)[0] for size in (128, 512)
    )
    assert torch.allclose(one_tile, whole, atol=1e-5)
    assert (tiled - whole).abs().mean() < (elsewhere - whole).abs().mean() / 4
    pixels, others = (hashed((1, 192, 192, 3), salt).abs() for salt in (23, 24))
    whole, elsewhere = (run("VAEEncode", pixels=one, vae=checkpoint.vae)[0]["samples"] for one in (pixels, others))
    tiled, one_tile = (
        run("VAEEncodeTiled", pixels=pixels, vae=checkpoint.vae, tile_size=size, overlap=32, **tiles)[0]["samples"] for size in (128, 512)
    )
    assert torch.allclose(one_tile, whole, atol=1e-5)
    assert (tiled - whole).abs().mean() < (elsewhere - whole).abs().mean() / 4


def bigger(way: str, first: Any, vae: Any) -> Any:
    """The first pass's latent at one and a half times its size: as a latent, or as a picture in between."""
    if way == "latent":
        return run("LatentUpscaleBy", samples=first, upscale_method="bislerp", scale_by=1.5)[0]
    if way == "latent to a size":
        return run("LatentUpscale", samples=first, upscale_method="nearest-exact", width=96, height=96, crop="disabled")[0]
    picture = run("VAEDecode", samples=first, vae=vae)[0]
    scaled = run("ImageScale", image=picture, upscale_method="lanczos", width=96, height=96, crop="disabled")[0]
    return run("VAEEncode", pixels=scaled, vae=vae)[0]


@pytest.mark.parametrize("way", ["latent", "latent to a size", "picture"])
def test_a_second_bigger_pass_starts_from_the_first(checkpoint: Checkpoint, way: str) -> None:
    weights = WeightCache(2**30)
    model = checkpoint.model

    def on(lane: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with cpu_context(lane, weights).activate():
            start = bigger(way, sample(model, run("EmptyLatentImage", width=64, height=64, batch_size=1)[0]), checkpoint.vae)
            second = sample(model, start, denoise=0.5, steps=2)["samples"]
            rest = {"sampler_name": "euler", "scheduler": "normal", "positive": POSITIVE, "negative": NEGATIVE, "latent_image": start}
            steps = {"steps": 4, "start_at_step": 2, "end_at_step": 10000, "add_noise": "enable", "return_with_leftover_noise": "disable"}
            by_steps = run("KSamplerAdvanced", model=model, noise_seed=7, cfg=2.0, **rest, **steps)[0]["samples"]
            nothing = sample(model, start, denoise=0.0)["samples"]
            return start["samples"], second, by_steps, nothing

    start, second, by_steps, nothing = on(0)
    assert start.shape == second.shape == (1, 4, 12, 12)
    assert bool(second.isfinite().all())
    assert torch.equal(second, by_steps)
    assert torch.equal(nothing, start)
    assert not torch.allclose(second, start, atol=1e-2)
    for other in in_threads(2, on):
        assert torch.equal(other[1], second)
