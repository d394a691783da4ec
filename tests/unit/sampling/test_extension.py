"""Hook points: nesting, keys, and the names that packs replace."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import comfy.sample
import comfy.samplers
from comfy.k_diffusion import sampling as k_sampling
from comfy.replaceable import exclusive
from comfy.sampling import extension
from comfy.sampling.extension import WrapperExecutor, WrappersMP
from comfy.sampling.ksampler import sample
from comfy.sampling.noise import prepare_noise
from tests.unit.sampling.fakes import AnalyticModel, Handle

CONDS = [[torch.zeros(1, 2, 3), {}]]


def run(handle: Handle, sampler: str = "euler") -> torch.Tensor:
    latent = torch.zeros(1, 4, 4, 4)
    return sample(handle, prepare_noise(latent, 1), 3, 2.0, sampler, "normal", CONDS, CONDS, latent, seed=1)


def test_wrappers_nest_in_the_order_they_were_added():
    told: list[str] = []

    def wrapper(name: str) -> Any:
        def wrap(executor: Any, x: int) -> int:
            told.append(f"{name} in")
            result = executor(x + 1)
            told.append(f"{name} out")
            return result

        return wrap

    executor = WrapperExecutor.new_executor(lambda x: x * 10, [wrapper("a"), wrapper("b")])
    assert executor.execute(1) == 30
    assert told == ["a in", "b in", "b out", "a out"]


def test_every_kind_of_sampling_wrapper_stands_around_its_call():
    kinds = [
        WrappersMP.OUTER_SAMPLE,
        WrappersMP.PREPARE_SAMPLING,
        WrappersMP.SAMPLER_SAMPLE,
        WrappersMP.PREDICT_NOISE,
        WrappersMP.CALC_COND_BATCH,
    ]
    told: dict[str, int] = {}
    handle = Handle(AnalyticModel("eps"))
    for kind in kinds:

        def count(executor: Any, *args: Any, _kind: str = kind, **kwargs: Any) -> Any:
            told[_kind] = told.get(_kind, 0) + 1
            return executor(*args, **kwargs)

        extension.add_wrapper_with_key(kind, "mine", count, handle.model_options, is_model_options=True)
    assert torch.equal(run(handle), run(Handle(AnalyticModel("eps"))))
    assert told == {kinds[0]: 1, kinds[1]: 1, kinds[2]: 1, kinds[3]: 3, kinds[4]: 3}


def test_nested_dicts_are_merged_and_the_first_is_left_alone():
    first = {"a": {"b": [1]}, "c": 1}
    merged = extension.merge_nested_dicts(first, {"a": {"b": [2], "d": 3}, "c": 4})
    assert merged == {"a": {"b": [1, 2], "d": 3}, "c": 4}
    assert first == {"a": {"b": [1]}, "c": 1}


REPLACED = [(comfy.samplers, "sampling_function"), (comfy.samplers, "sample"), (comfy.samplers, "calculate_sigmas")]


@pytest.mark.parametrize(("module", "name"), REPLACED)
def test_the_core_calls_what_a_pack_assigned(module, name):
    original, calls = getattr(module, name), []

    def mine(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return original(*args, **kwargs)

    with exclusive():
        setattr(module, name, mine)
        run(Handle(AnalyticModel("eps")))
    assert calls
    assert getattr(module, name) is original


def test_the_core_uses_a_ksampler_class_and_a_noise_sampler_of_a_pack():
    made: list[int] = []

    class Mine(comfy.samplers.KSampler):
        def set_steps(self, steps: int, denoise: float | None = None) -> None:
            made.append(steps)
            super().set_steps(steps, denoise)

    def silent(x: torch.Tensor, seed: int | None = None) -> Any:
        return lambda sigma, sigma_next: torch.zeros_like(x)

    loud = run(Handle(AnalyticModel("eps")), "euler_ancestral")
    with exclusive():
        comfy.samplers.KSampler = Mine
        k_sampling.default_noise_sampler = silent
        quiet = run(Handle(AnalyticModel("eps")), "euler_ancestral")
    assert made == [3]
    assert not torch.equal(loud, quiet)
    assert torch.equal(run(Handle(AnalyticModel("eps")), "euler_ancestral"), loud)


def test_a_sampler_that_a_pack_adds_is_found_by_name(monkeypatch):
    monkeypatch.setattr(k_sampling, "sample_mine", lambda model, x, sigmas, **kwargs: x * 0, raising=False)
    monkeypatch.setattr(comfy.samplers.KSampler, "SAMPLERS", [*comfy.samplers.KSampler.SAMPLERS, "mine"])
    assert bool((run(Handle(AnalyticModel("eps")), "mine") == 0).all())


def test_noise_that_a_pack_prepares_is_used_by_the_node():
    from comfy.nodes.sampling import KSampler

    latent = {"samples": torch.zeros(1, 4, 4, 4)}
    with exclusive():
        comfy.sample.prepare_noise = lambda latent_image, seed, noise_inds=None: torch.zeros_like(latent_image)
        (out,) = KSampler().sample(Handle(AnalyticModel("eps")), 1, 1, 1.0, "euler", "normal", CONDS, CONDS, latent)
    (other,) = KSampler().sample(Handle(AnalyticModel("eps")), 1, 1, 1.0, "euler", "normal", CONDS, CONDS, latent)
    assert not torch.equal(out["samples"], other["samples"])
