"""Every sampler, a real network: one seed has one picture, on either lane, alone, again, and while the other lane works."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from comfy.device.context import DeviceContext
from comfy.models.loader import Checkpoint, load_checkpoint
from comfy.nodes.sampling import KSampler
from comfy.sampling.sampler import SAMPLER_NAMES
from comfy.weights.cache import WeightCache
from tests.fakes import cpu_context, in_threads
from tests.hashed_weights import hashed
from tests.make_checkpoint import make_sd1_checkpoint
from tests.unit.sampling.kinds import needs_torchsde

STEPS, CFG = 3, 1.5  # a random network is no denoiser: more guidance, and the adaptive sampler takes hundreds of steps

POSITIVE, NEGATIVE = ([[hashed((1, 5, 32), salt), {}]] for salt in (1, 2))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = make_sd1_checkpoint(
        tmp_path_factory.mktemp("models") / "tiny.safetensors", width=32, channel_mult=(1,), context=32, clip_layers=1
    )
    return load_checkpoint(path, embedding_folders=())


@pytest.fixture(scope="module")
def lanes() -> list[DeviceContext]:
    weights = WeightCache(2**30)
    return [cpu_context(index, weights) for index in range(2)]


def latent(checkpoint: Checkpoint, lane: DeviceContext, sampler: str, seed: int) -> Tensor:
    with lane.activate():
        empty = {"samples": torch.zeros(1, 4, 4, 4)}
        return KSampler().sample(checkpoint.model, seed, STEPS, CFG, sampler, "normal", POSITIVE, NEGATIVE, empty)[0]["samples"]


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_a_seed_is_a_picture_on_both_lanes_alone_and_busy(checkpoint: Checkpoint, lanes: list[DeviceContext], sampler: str) -> None:
    if needs_torchsde(sampler):
        pytest.importorskip("torchsde")
    alone = [latent(checkpoint, lanes[seed], sampler, seed) for seed in range(2)]
    assert bool(alone[0].isfinite().all())
    assert not torch.equal(alone[0], alone[1])
    together = in_threads(2, lambda i: {seed: latent(checkpoint, lanes[i], sampler, seed) for seed in (i, 1 - i)})
    for lane in together:
        for seed in range(2):
            assert torch.equal(lane[seed], alone[seed])
