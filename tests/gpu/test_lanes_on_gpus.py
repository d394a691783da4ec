"""What only a GPU can show: weights on the device, pictures against float32, the same bytes on every GPU. Run by hand there:

python3 -m pytest tests/gpu
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from comfy.device.context import DeviceContext, make_context
from comfy.models.loader import load_checkpoint
from comfy.nodes.sampling import KSampler
from comfy.sampling.sampler import SAMPLER_NAMES
from comfy.units import GIB
from comfy.weights.cache import WeightCache
from tests.fakes import cpu_context, in_threads
from tests.hashed_weights import hashed
from tests.make_checkpoint import make_sd1_checkpoint
from tests.unit.sampling.kinds import needs_torchsde

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]

#: largest difference of a decoded pixel between float16 on a GPU and float32 on the CPU, of 1; docs/fidelity.md
FP16_TOLERANCE = 0.02
SAMPLERS = ("euler", "euler_ancestral", "dpmpp_2m")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sd1_checkpoint(tmp_path_factory.mktemp("gpu") / "small.safetensors", width=64, context=128, vae_ch=32)


@pytest.fixture(scope="module")
def lanes() -> Iterator[list[DeviceContext]]:
    cache = WeightCache(4 * GIB)
    yield [make_context(i, torch.device("cuda", i), cache, 8 * GIB) for i in range(torch.cuda.device_count())]
    cache.check()


def picture(ctx: DeviceContext, path: Path, sampler: str = "euler", seed: int = 5) -> torch.Tensor:
    """A decoded picture (1, h, w, 3) float32 on the CPU, made as the nodes make it."""
    from comfy.nodes.builtin import register_builtin
    from comfy.nodes.registry import NodeRegistry  # imported late: tests are collected on machines without a GPU too

    registry = NodeRegistry()
    register_builtin(registry)

    def run(name: str, **inputs: Any) -> Any:
        cls = registry.classes[name]
        return getattr(cls(), cls.FUNCTION)(**inputs)

    with ctx.activate():
        model, clip, vae = load_checkpoint(path)
        (positive,) = run("CLIPTextEncode", clip=clip, text="a (red:1.3) circle")
        (negative,) = run("CLIPTextEncode", clip=clip, text="")
        (latent,) = run("EmptyLatentImage", width=128, height=128, batch_size=1)
        (latent,) = run(
            "KSampler",
            model=model,
            seed=seed,
            steps=4,
            cfg=5.0,
            sampler_name=sampler,
            scheduler="normal",
            positive=positive,
            negative=negative,
            latent_image=latent,
            denoise=1.0,
        )
        (image,) = run("VAEDecode", vae=vae, samples=latent)
        return image.float().cpu()


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])  # euler_ancestral draws on the device: another stream than the CPU's
def test_float16_on_a_gpu_is_close_to_float32_on_the_cpu(lanes: list[DeviceContext], checkpoint: Path, sampler: str) -> None:
    on_cpu = picture(cpu_context(), checkpoint, sampler)
    on_gpu = picture(lanes[0], checkpoint, sampler)
    assert on_gpu.shape == on_cpu.shape
    assert (on_gpu - on_cpu).abs().max() < FP16_TOLERANCE


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One level deep: of a deeper random network, which is no denoiser, the adaptive sampler makes hundreds of steps."""
    return make_sd1_checkpoint(tmp_path_factory.mktemp("gpu") / "flat.safetensors", width=64, channel_mult=(1,), context=64, clip_layers=1)


def latent(ctx: DeviceContext, path: Path, sampler: str) -> torch.Tensor:
    """(1, 4, 16, 16) on the CPU: three steps with noise that the sampler draws itself, on the lane's GPU or from a path."""
    with ctx.activate():
        positive, negative = ([[hashed((1, 5, 64), salt), {}]] for salt in (1, 2))
        empty = {"samples": torch.zeros(1, 4, 16, 16)}
        return KSampler().sample(load_checkpoint(path).model, 5, 3, 1.5, sampler, "normal", positive, negative, empty)[0]["samples"].float()


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_every_sampler_gives_the_same_bytes_on_every_gpu(lanes: list[DeviceContext], network: Path, sampler: str) -> None:
    if needs_torchsde(sampler):
        pytest.importorskip("torchsde")
    alone = [latent(ctx, network, sampler) for ctx in lanes]
    together = in_threads(len(lanes), lambda i: [latent(lanes[i], network, sampler) for _ in range(2)])
    assert bool(alone[0].isfinite().all())
    for other in (*alone, *(result for results in together for result in results)):
        assert torch.equal(alone[0], other)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_gpu_gives_the_same_bytes_alone_and_together(lanes: list[DeviceContext], checkpoint: Path, sampler: str) -> None:
    alone = [picture(ctx, checkpoint, sampler) for ctx in lanes]
    together = in_threads(len(lanes), lambda i: [picture(lanes[i], checkpoint, sampler) for _ in range(2)])
    for other in (*alone, *(image for images in together for image in images)):
        assert torch.equal(alone[0], other)


def test_parameters_are_views_of_one_allocation(lanes: list[DeviceContext], checkpoint: Path) -> None:
    ctx = lanes[-1]
    with ctx.activate():
        network = load_checkpoint(checkpoint).model.model.diffusion_model
        storages = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
        assert len(storages) == 1
        assert {parameter.device for parameter in network.parameters()} == {ctx.device}
        assert {parameter.data_ptr() % 256 for parameter in network.parameters()} == {0}
    ctx.resident.check()


def test_unloading_gives_the_memory_back_to_torch(lanes: list[DeviceContext], checkpoint: Path) -> None:
    ctx = lanes[0]
    picture(ctx, checkpoint)
    with ctx.activate():
        ctx.unload()
        before = torch.cuda.memory_allocated(ctx.device)
        for _ in range(5):
            picture_bytes = picture(ctx, checkpoint)
            ctx.unload()
        del picture_bytes
        assert torch.cuda.memory_allocated(ctx.device) <= before + 64 * 1024**2  # cuBLAS workspaces come once
    assert ctx.holds() == frozenset()


def test_a_model_that_does_not_fit_is_a_typed_error(lanes: list[DeviceContext], checkpoint: Path) -> None:
    from comfy.errors import OutOfDeviceMemory

    ctx = lanes[0]
    with ctx.activate():
        ctx.unload()
        torch.cuda.empty_cache()  # what other tests left in torch's cache would do for this model
        hogs: list[torch.Tensor] = []
        for nbytes in (2**30, 2**26, 2**21):  # ever smaller, until nothing is left
            with contextlib.suppress(torch.cuda.OutOfMemoryError):
                while True:
                    hogs.append(torch.empty(nbytes, dtype=torch.uint8, device=ctx.device))
        try:
            with pytest.raises((OutOfDeviceMemory, torch.cuda.OutOfMemoryError)):
                picture(ctx, checkpoint)
        finally:
            hogs.clear()
            torch.cuda.empty_cache()
    assert picture(ctx, checkpoint).isfinite().all()
