"""Sampler, schedule and noise nodes against the recorded runs (goldens A.3, B.4)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from comfy.sampling.sampler import KSAMPLER, ksampler, sampler_object
from comfy_extras.custom_sampling import guiders, runs, samplers, schedulers, sigmas
from comfy_extras.nodes_advanced_samplers import SamplerEulerCFGpp, SamplerLCMUpscale
from comfy_extras.nodes_align_your_steps import AlignYourStepsScheduler
from comfy_extras.nodes_optimalsteps import OptimalStepsScheduler
from tests.goldens import assert_close, facts, tensors
from tests.unit.sampling.fakes import AnalyticModel, Handle

RECORD, STORED = facts("b_custom_samplers"), tensors("b_custom_samplers")
LISTS = facts("a_schedulers")["scheduler_nodes"]
NODES = {**samplers.NODES, "SamplerEulerCFGpp": SamplerEulerCFGpp, "SamplerLCMUpscale": SamplerLCMUpscale}


def first(result: Any) -> Any:
    return result[0] if isinstance(result, tuple) else result.result[0]


def sampler_of(key: str, handle: Handle) -> KSAMPLER:
    _, node, variant = key.split("/")
    case = RECORD["cases"][key]
    if node == "KSamplerSelect":
        return sampler_object(variant)
    if node == "ksampler_options":
        return ksampler(variant.removesuffix("_churn"), case["options"])
    options = dict(case.get("node_params") or case["options"])
    if node == "SamplerSASolver":
        options["model"] = handle
    if "SDE" in node and node != "SamplerER_SDE":
        options["noise_device"] = "cpu"
    if node == "SamplerEulerCFGpp":
        options = {"version": variant}
    cls = NODES[node]
    return first(cls().get_sampler(**options) if hasattr(cls, "get_sampler") else cls.execute(**options))


def sigmas_of(family: str, handle: Handle) -> torch.Tensor:
    return first(schedulers.BasicScheduler().get_sigmas(handle, RECORD["scheduler"][family], RECORD["steps"], 1.0))


def conditioning(name: str) -> list[Any]:
    return [[STORED[name], {}]]


@pytest.mark.parametrize("key", [key for key in RECORD["cases"] if "/split/" not in key])
def test_a_node_with_options_runs_as_recorded(key):
    family = key.split("/")[0]
    case = RECORD["cases"][key]
    model = AnalyticModel(family)
    handle = Handle(model)
    latent = {"samples": torch.zeros(RECORD["shape"])}
    sampler = sampler_of(key, handle)
    out, denoised = runs.SamplerCustom().sample(
        handle, True, RECORD["seed"], RECORD["cfg"], conditioning("pos"), conditioning("neg"), sampler, sigmas_of(family, handle), latent
    )
    assert_close(out["samples"], STORED[f"{key}/final"], case["tol_final"], what="final")
    assert_close(denoised["samples"], STORED[f"{key}/denoised_output"], max(case["tol_final"], case.get("tol_calls", 0)), what="denoised")
    assert len(model.calls) == case["n_calls"]
    assert_close(torch.tensor(model.sigmas), torch.tensor(case["sigmas_of_calls"]), 1e-4, relative=True, what="sigmas")
    if f"{key}/calls_x" in STORED:
        kept = STORED[f"{key}/calls_x"]
        assert_close(torch.stack(model.calls[: len(kept)]), kept, case["tol_calls"], what="calls_x")


@pytest.mark.parametrize("family", ["eps", "flow"])
def test_two_stages_are_one_run(family):
    model = AnalyticModel(family)
    handle = Handle(model)
    key = f"{family}/split/euler_two_stage"
    high, low = sigmas.SplitSigmas().get_sigmas(sigmas_of(family, handle), RECORD["steps"] // 2)
    guider = first(guiders.CFGGuider().get_guider(handle, conditioning("pos"), conditioning("neg"), RECORD["cfg"]))
    noise = first(guiders.RandomNoise().get_noise(RECORD["seed"]))
    start = {"samples": torch.zeros(RECORD["shape"])}
    begun, begun_denoised = runs.SamplerCustomAdvanced().sample(noise, guider, sampler_object("euler"), high, start)
    none = first(guiders.DisableNoise().get_noise())
    ended, ended_denoised = runs.SamplerCustomAdvanced().sample(none, guider, sampler_object("euler"), low, begun)
    case = RECORD["cases"][key]
    assert_close(begun["samples"], STORED[f"{family}/split/first"], case["tol_calls"], what="first")
    assert_close(begun_denoised["samples"], STORED[f"{family}/split/first_denoised"], case["tol_calls"], what="first denoised")
    assert_close(ended["samples"], STORED[f"{key}/final"], case["tol_final"], what="final")
    assert_close(ended_denoised["samples"], STORED[f"{key}/denoised_output"], case["tol_final"], what="denoised")
    assert_close(torch.stack(model.calls), STORED[f"{key}/calls_x"], case["tol_calls"], what="calls_x")


@pytest.mark.parametrize("part", ["full", "partial", "single"])
@pytest.mark.parametrize("family", ["eps", "flow"])
def test_add_noise_is_the_recorded_latent(family, part):
    handle = Handle(AnalyticModel(family))
    whole = sigmas_of(family, handle)
    chosen = {"full": whole, "partial": whole[2:4], "single": whole[2:3]}[part]
    noise = first(guiders.RandomNoise().get_noise(RECORD["seed"]))
    (out,) = runs.AddNoise().add_noise(handle, noise, chosen, {"samples": STORED["addnoise_latent"]})
    tolerance = RECORD["cases"][f"{family}/SamplerLMS/order2"]["tol_final"]
    assert_close(out["samples"], STORED[f"{family}/AddNoise/{part}"], tolerance, what=part)


PUBLISHED = {
    "AlignYourStepsScheduler": AlignYourStepsScheduler,
    "AYS": AlignYourStepsScheduler,
    "OptimalStepsScheduler": OptimalStepsScheduler,
}


@pytest.mark.parametrize("key", [key for key in LISTS if key.split("/")[0] in PUBLISHED])
def test_published_schedule_is_the_recorded_one(key):
    actual = first(PUBLISHED[key.split("/")[0]].execute(**LISTS[key]))
    assert_close(actual, tensors("a_scheduler_nodes")[key], 1e-5, relative=True, what=key)


@pytest.mark.parametrize("key", [key for key in LISTS if key.startswith("SamplingPercentToSigma")])
def test_percent_to_sigma_is_the_recorded_one(key):
    _, name, percent, actual_sigma = key.split("/")
    (sigma,) = sigmas.SamplingPercentToSigma().get_sigma(Handle(AnalyticModel(name)), float(percent), actual_sigma == "True")
    tolerance = 3e-4 if name.startswith("cascade") else 1e-5
    assert_close(torch.tensor(sigma), torch.tensor(LISTS[key]), tolerance, relative=True, what=key)
