"""Which sigmas reach the sampler for every KSampler setting (goldens A.4), and that a run stops when it is told to."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from comfy import control
from comfy.control import JobControl
from comfy.errors import InputUnusable, Interrupted
from comfy.nodes.sampling import KSampler, KSamplerAdvanced
from comfy.sampling import guider
from comfy.sampling.ksampler import sample
from comfy.sampling.noise import prepare_noise
from tests.goldens import assert_close, facts, tensors
from tests.unit.sampling.fakes import AnalyticModel, Handle

RULES: dict[str, list[dict[str, Any]]] = {}
for _rule in facts("a_schedulers")["ksampler_rules"]:
    RULES.setdefault("/".join(_rule["k"].split("/")[:3]), []).append(_rule)
SETTING = re.compile(r"steps(\d+)_den([\d.]+)_start(\w+)_end(\w+)_left(\w+)_noise(\w+)")
CONDS = [[torch.zeros(1, 2, 3), {}]]


@pytest.mark.parametrize("case", sorted(RULES))
def test_the_sampler_is_given_the_recorded_sigmas(case, monkeypatch):
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def record(self: Any, noise: Any, latent_image: Any, sampler: Any, sigmas: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append((noise, sigmas))
        return latent_image

    monkeypatch.setattr(guider.CFGGuider, "outer_sample", record)
    name, sampler, scheduler = case.split("/")
    handle = Handle(AnalyticModel(name))
    latent = {"samples": torch.ones(1, 4, 2, 2)}
    for rule in RULES[case]:
        seen.clear()
        steps, denoise, start, end, leftover, noise = SETTING.fullmatch(rule["k"].split("/")[3]).groups()
        if start == "None":
            (out,) = KSampler().sample(handle, 1, int(steps), 4.0, sampler, scheduler, CONDS, CONDS, latent, float(denoise))
        else:
            (out,) = KSamplerAdvanced().sample(
                handle, noise, 1, int(steps), 4.0, sampler, scheduler, CONDS, CONDS, latent, int(start), int(end), leftover, float(denoise)
            )
        assert bool(seen) == rule["called"], rule["k"]
        assert torch.equal(out["samples"], latent["samples"])
        if seen:
            given_noise, sigmas = seen[0]
            assert bool((given_noise == 0).all()) == rule["noise_zero"], rule["k"]
            tolerance = 2e-3 if scheduler == "kl_optimal" else 2e-5
            assert_close(sigmas, tensors("a_ksampler_sigmas")[rule["k"]], tolerance, relative=True, what=rule["k"])


def run(model: AnalyticModel, sampler: str = "heun", callback: Any = None) -> torch.Tensor:
    latent = torch.zeros(1, 4, 4, 4)
    return sample(Handle(model), prepare_noise(latent, 1), 8, 2.0, sampler, "normal", CONDS, CONDS, latent, callback=callback, seed=1)


@pytest.mark.parametrize("sampler", ["heun", "dpm_adaptive", "uni_pc"])
def test_a_stopped_job_asks_the_model_no_further(sampler):
    job, other = JobControl("mine"), JobControl("other")
    model = AnalyticModel("eps")
    answer = model.apply_model

    def stop_in_the_third_call(*args: Any, **kwargs: Any) -> torch.Tensor:
        if len(model.calls) == 2:
            job.stop.set()
        return answer(*args, **kwargs)

    model.apply_model = stop_in_the_third_call
    with control.entered(job), pytest.raises(Interrupted):
        run(model, sampler)
    assert len(model.calls) == 3
    model.calls.clear()
    model.apply_model = answer
    with control.entered(other):  # another lane's job goes on
        run(model, sampler)
    assert len(model.calls) > 3


def test_progress_and_the_last_estimate_reach_the_job():
    told: list[tuple[float, float, Any, str | None]] = []
    job = JobControl("mine", progress=lambda *args: told.append(args), node_id="7")
    with control.entered(job):
        KSampler().sample(Handle(AnalyticModel("eps")), 1, 3, 2.0, "euler", "normal", CONDS, CONDS, {"samples": torch.zeros(1, 4, 4, 4)})
    assert told == [(1, 3, None, "7"), (2, 3, None, "7"), (3, 3, None, "7")]


def test_an_unknown_sampler_is_a_typed_error():
    with pytest.raises(InputUnusable):
        run(AnalyticModel("eps"), "nobody")


def test_sampling_is_the_same_in_four_threads_at_once():
    from concurrent.futures import ThreadPoolExecutor

    alone = run(AnalyticModel("eps"), "euler_ancestral")
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda _: run(AnalyticModel("eps"), "euler_ancestral"), range(8)))
    assert all(torch.equal(alone, other) for other in together)
