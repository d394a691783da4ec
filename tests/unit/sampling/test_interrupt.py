"""A stop ends a run within one evaluation of the model, whatever the sampler; the other lane's run goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from comfy import control
from comfy.control import JobControl
from comfy.errors import Interrupted
from comfy.nodes.sampling import KSampler
from comfy.sampling.sampler import SAMPLER_NAMES, sampler_object
from comfy.sampling.schedules import calculate_sigmas
from comfy_extras.custom_sampling import guiders, runs
from tests.fakes import PATIENCE_S, in_threads
from tests.unit.sampling.fakes import AnalyticModel, Handle
from tests.unit.sampling.kinds import needs_torchsde, sampling_type

STEPS, SEED, CFG = 4, 3, 2.0
CONDS = [[torch.full((1, 2, 3), 0.5), {}]]


class Watched(AnalyticModel):
    """Calls `at[n]` when the model is asked for the n-th time (from 1), before it answers."""

    def __init__(self, at: dict[int, Callable[[], Any]]) -> None:
        super().__init__("eps")
        self.at = at

    def apply_model(self, *args: Any, **kwargs: Any) -> Tensor:
        self.at.get(len(self.calls) + 1, lambda: None)()
        return super().apply_model(*args, **kwargs)


def by_name(model: AnalyticModel, sampler: str) -> Tensor:
    """A run of the KSampler node."""
    latent = {"samples": torch.zeros(1, 4, 4, 4)}
    return KSampler().sample(Handle(model), SEED, STEPS, CFG, sampler, "normal", CONDS, CONDS, latent)[0]["samples"]


def advanced(model: AnalyticModel, sampler: str) -> Tensor:
    """A run of SamplerCustomAdvanced."""
    guider = guiders.CFGGuider().get_guider(Handle(model), CONDS, CONDS, CFG)[0]
    sigmas = calculate_sigmas(sampling_type("sd15_eps"), "normal", STEPS)
    latent = {"samples": torch.zeros(1, 4, 4, 4)}
    noise = guiders.RandomNoise().get_noise(SEED)[0]
    return runs.SamplerCustomAdvanced().sample(noise, guider, sampler_object(sampler), sigmas, latent)[0]["samples"]


WAYS: dict[str, Callable[[AnalyticModel, str], Tensor]] = {"KSampler": by_name, "SamplerCustomAdvanced": advanced}


@cache
def alone(way: str, sampler: str) -> tuple[Tensor, int]:
    """(the result, how often the model is asked) of a run that nobody stops."""
    if needs_torchsde(sampler):
        pytest.importorskip("torchsde")
    model = AnalyticModel("eps")
    return WAYS[way](model, sampler), len(model.calls)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_a_stop_during_an_evaluation_is_the_last_evaluation(sampler: str, way: str) -> None:
    _, calls = alone(way, sampler)
    assert calls > 2
    for k in sorted({1, calls // 2, calls - 1}):
        job = JobControl("mine")
        model = Watched({k: job.stop.set})
        with control.entered(job), pytest.raises(Interrupted):
            WAYS[way](model, sampler)
        assert len(model.calls) == k


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_a_stop_on_one_lane_leaves_the_other_lanes_run_alone(sampler: str, way: str) -> None:
    """Lane 1 waits within its second evaluation until lane 0 was stopped within its own: both are at work at that time."""
    expected, calls = alone(way, sampler)
    stopped, begun = threading.Event(), threading.Event()
    jobs = [JobControl("first", lane=0), JobControl("second", lane=1)]

    def hold() -> None:
        begun.set()
        stopped.wait(PATIENCE_S)

    models = [Watched({1: lambda: begun.wait(PATIENCE_S), 2: jobs[0].stop.set}), Watched({2: hold})]

    def lane(index: int) -> Tensor | None:
        try:
            with control.entered(jobs[index]):
                return WAYS[way](models[index], sampler)
        except Interrupted:
            return None
        finally:
            if index == 0:
                stopped.set()

    first, second = in_threads(2, lane)
    assert begun.is_set()
    assert stopped.is_set()
    assert first is None
    assert len(models[0].calls) == 2
    assert second is not None
    assert torch.equal(second, expected)
    assert len(models[1].calls) == calls
