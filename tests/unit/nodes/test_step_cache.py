"""EasyCache and LazyCache: which steps are left out, by a simulation of its own; and real runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from comfy.models.loader import Checkpoint, load_checkpoint
from comfy.nodes.sampling import KSampler
from comfy.sampling.step_cache import KEY, StepCache
from comfy_extras.nodes_easycache import EasyCache, LazyCache
from tests.fakes import cpu_context
from tests.make_checkpoint import make_sd1_checkpoint

SETTINGS = {"start_percent": 0.0, "end_percent": 1.0, "verbose": True}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return load_checkpoint(make_sd1_checkpoint(tmp_path_factory.mktemp("models") / "small.safetensors"), embedding_folders=())


def simulated(xs: list[Tensor], outputs: list[Tensor], active: list[bool], threshold: float) -> tuple[list[Tensor], list[bool]]:
    """The rule of the paper in one loop: (results, whether each was computed)."""
    results: list[Tensor] = []
    computed: list[bool] = []
    rate, offset, error = None, None, 0.0
    for i, (x, output) in enumerate(zip(xs, outputs)):
        if active[i] and rate is not None:
            error += rate * float((x - xs[i - 1]).norm()) / float(results[i - 1].norm())
            if error < threshold:
                results.append(x + offset)
                computed.append(False)
                continue
        if i:
            rate = float((output - results[i - 1]).norm()) / float((x - xs[i - 1]).norm())
        results.append(output)
        computed.append(True)
        offset, error = output - x, 0.0
    return results, computed


@pytest.mark.parametrize("inside", [True, False])
def test_steps_are_left_out_by_the_papers_rule(inside: bool) -> None:
    seeds = torch.Generator().manual_seed(1)
    xs = [torch.randn(1, 4, 3, 3, generator=seeds)]
    for _ in range(9):
        xs.append(xs[-1] + torch.randn(1, 4, 3, 3, generator=seeds) * 0.1)
    outputs = [0.5 * x + 0.1 * x**2 for x in xs]
    sigmas = [10.0 - i for i in range(10)]
    cache = StepCache(0.25, 8.5, 1.5)
    expected, computed = simulated(xs, outputs, [1.5 <= sigma <= 8.5 for sigma in sigmas], 0.25)
    assert 0 < sum(computed) < 10
    calls: list[int] = []
    guider = SimpleNamespace(model_options={})

    def run() -> list[Tensor]:
        options = guider.model_options["transformer_options"]
        made = []
        for i, x in enumerate(xs):
            sigma = torch.tensor([sigmas[i]])

            def network(*args: Any, **kwargs: Any) -> Tensor:
                calls.append(i)  # noqa: B023
                return outputs[i]  # noqa: B023

            if inside:
                made.append(cache.diffusion_model(network, x, sigma, None, transformer_options={**options, "sigmas": sigma}))
            else:
                made.append(cache.predict_noise(network, x, sigma, {"transformer_options": options}, 0))
        return made

    executor: Any = run
    found = cache.outer_sample(_With(executor, guider))
    assert calls == [i for i, was in enumerate(computed) if was]
    assert all(torch.allclose(mine, theirs, atol=1e-5) for mine, theirs in zip(found, expected))
    assert guider.model_options["transformer_options"][KEY].reused == 10 - len(calls)


class _With:
    """An executor around a function."""

    def __init__(self, function: Any, class_obj: Any) -> None:
        self.function, self.class_obj = function, class_obj

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


@pytest.mark.parametrize("node", [EasyCache, LazyCache])
def test_a_run_makes_fewer_passes_and_always_the_same_picture(node: Any, checkpoint: Checkpoint) -> None:
    model, clip, _ = checkpoint
    assert clip is not None

    def sampled(model: Any) -> tuple[Tensor, int]:
        lane = cpu_context()
        with lane.activate():
            positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a cat", "a dog"))
            empty = {"samples": torch.zeros(1, 4, 8, 8)}
            made = KSampler().sample(model, 7, 8, 4.0, "euler", "normal", positive, negative, empty, 1.0)[0]["samples"]
        return made, lane.runner.statistics().calls

    plain, calls = sampled(model)
    off, same = sampled(node.EXECUTE_NORMALIZED(model=model, reuse_threshold=0.0, **SETTINGS).args[0])
    assert torch.equal(off, plain)
    assert same == calls == 8
    cached = node.EXECUTE_NORMALIZED(model=model, reuse_threshold=1.0, **SETTINGS).args[0]
    first, fewer = sampled(cached)
    assert 2 <= fewer < calls
    assert bool(torch.isfinite(first).all())
    assert torch.equal(sampled(cached)[0], first)  # nothing of a run is left for the next
    never = node.EXECUTE_NORMALIZED(model=model, reuse_threshold=3.0, start_percent=1.0, end_percent=1.0, verbose=False).args[0]
    assert torch.equal(sampled(never)[0], plain)
