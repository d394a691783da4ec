"""Prompt to picture through the handles: the same bytes each time, on each lane, and after pickling."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from comfy.device.context import DeviceContext
from comfy.models.loader import Checkpoint, load_checkpoint
from comfy.nodes.sampling import KSampler
from comfy.weights.cache import WeightCache
from tests.fakes import cpu_context, in_threads
from tests.make_checkpoint import make_sd1_checkpoint


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sd1_checkpoint(tmp_path_factory.mktemp("models") / "small.safetensors")


def picture(checkpoint: Checkpoint, ctx: DeviceContext, seed: int = 42, prompt: str = "a (red:1.3) cat") -> Tensor:
    model, clip, vae = checkpoint
    assert clip is not None
    assert vae is not None
    with ctx.activate():
        positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (prompt, "dog"))
        empty = {"samples": torch.zeros(1, 4, 8, 8)}
        latent = KSampler().sample(model, seed, 2, 5.0, "euler", "normal", positive, negative, empty, 1.0)[0]
        return vae.decode(latent["samples"])


def test_one_seed_one_picture(path: Path) -> None:
    checkpoint = load_checkpoint(path, embedding_folders=())
    first = picture(checkpoint, cpu_context())
    assert first.shape == (1, 64, 64, 3)
    assert bool(torch.isfinite(first).all())
    assert torch.equal(picture(checkpoint, cpu_context()), first)
    assert torch.equal(picture(pickle.loads(pickle.dumps(checkpoint)), cpu_context()), first)
    assert not torch.equal(picture(checkpoint, cpu_context(), seed=43), first)
    assert not torch.equal(picture(checkpoint, cpu_context(), prompt="a (red:1.2) cat"), first)


def test_two_lanes_at_once_make_the_pictures_of_one(path: Path) -> None:
    checkpoint = load_checkpoint(path, embedding_folders=())
    alone = [picture(checkpoint, cpu_context(), seed=seed) for seed in range(2)]
    weights = WeightCache(2**30)
    contexts = [cpu_context(i, weights) for i in range(2)]
    together = in_threads(2, lambda lane: [picture(checkpoint, contexts[lane], seed=seed) for seed in range(2)])
    for pictures in together:
        for mine, expected in zip(pictures, alone):
            assert torch.equal(mine, expected)
    assert weights.statistics().reads == 3
    weights.check()


def test_models_are_shed_when_the_budget_is_small(path: Path) -> None:
    """Room for one network at a time: each is brought back when it is needed, the picture stays the same."""
    checkpoint = load_checkpoint(path, embedding_folders=())
    tight = cpu_context(budget_bytes=14 * 2**20)
    expected = picture(checkpoint, cpu_context())
    assert torch.equal(picture(checkpoint, tight), expected)
    assert tight.resident.statistics().evictions > 0
    tight.resident.check()
