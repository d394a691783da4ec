"""Noise against the recorded draws, exactly (goldens B.5 and C)."""

from __future__ import annotations

import ast
import contextlib
import sys

import pytest
import torch

from comfy.errors import InputUnusable, PackageMissing
from comfy.sampling.ksampler import sample
from comfy.sampling.noise import BrownianTreeNoiseSampler, Continued, default_noise_sampler, prepare_noise
from comfy.sampling.sampler import SAMPLER_NAMES
from tests.goldens import assert_close, facts, tensors
from tests.unit.sampling.fakes import AnalyticModel, Handle
from tests.unit.sampling.kinds import needs_torchsde

DRAWS = tensors("c_noise")
SOURCES = tensors("b_noise_samplers")


def shape_of(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split("x"))


@pytest.mark.parametrize("key", [key for key in DRAWS if key.split("/")[0] in ("plain", "batch_index", "fp16", "ddim_inpaint_noise")])
def test_initial_noise_is_the_recorded_draw(key):
    kind, seed, shape, *indices = key.split("/")
    wanted = [int(i) for i in indices[0].split("_")] if indices else None
    latent = torch.zeros(shape_of(shape), dtype=torch.float16 if kind == "fp16" else torch.float32)
    number = int(seed[4:]) + (1 if kind == "ddim_inpaint_noise" else 0)
    noise = prepare_noise(latent, number, wanted)
    assert noise.dtype == latent.dtype
    assert torch.equal(noise, DRAWS[key])


def test_later_draws_continue_the_stream_of_the_initial_noise():
    expected = DRAWS["global_rng_after_seed42_1x4x8x8/randn_1x4x8x8"]
    latent = torch.zeros(1, 4, 8, 8)
    noise = prepare_noise(latent, 42)
    for _ in range(2):  # the same noise used again continues from the same place
        assert torch.equal(Continued(noise, 42).randn_like(latent), expected)
    assert torch.equal(Continued(noise.clone(), 42).randn_like(latent), expected)


def test_noise_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    latent = torch.zeros(1, 4, 4, 4)
    Continued(prepare_noise(latent, 7), 7).randn_like(latent)
    default_noise_sampler(latent, 7)(1.0, 0.5)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_seed_that_no_generator_takes_is_a_typed_error():
    with pytest.raises(InputUnusable):
        prepare_noise(torch.zeros(1, 4, 2, 2), 2**64)


@pytest.mark.parametrize("key", [key for key in SOURCES if key.startswith("brownian/")])
@pytest.mark.parametrize("backwards", [False, True])
def test_brownian_noise_is_the_recorded_path_in_any_order(key, backwards):
    pytest.importorskip("torchsde")
    recorded = facts("b_noise_samplers")["brownian"][key]
    seed, shape = key.split("/")[2:]
    sampler = BrownianTreeNoiseSampler(
        torch.zeros(shape_of(shape)), recorded["sigma_min"], recorded["sigma_max"], seed=int(seed[4:]), cpu=True
    )
    queries = list(enumerate(recorded["queries"]))
    for row, (sigma, sigma_next) in reversed(queries) if backwards else queries:
        assert_close(sampler(torch.tensor(sigma), torch.tensor(sigma_next)), SOURCES[key][row], 1e-6, what=f"{key} {row}")


@pytest.mark.parametrize("key", [key for key in SOURCES if key.startswith("default/")])
def test_default_noise_is_the_recorded_draws(key):
    _, seed, shape = key.split("/")
    sampler = default_noise_sampler(torch.zeros(shape_of(shape)), seed=int(seed[4:]))
    assert torch.equal(torch.stack([sampler(1.0, 0.5) for _ in range(3)]), SOURCES[key])
    label = f"{seed}/{shape_of(shape)}"
    if facts("b_noise_samplers")["default"][label]["first_draw_equals_initial_noise"]:
        latent = torch.zeros(ast.literal_eval(label.split("/")[1]))
        assert torch.equal(prepare_noise(latent, int(seed[4:])), SOURCES[key][0])


def test_a_sampler_without_torchsde_says_which_package_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchsde", None)
    with pytest.raises(PackageMissing, match="torchsde"):
        BrownianTreeNoiseSampler(torch.zeros(1, 4, 2, 2), 0.03, 14.6, seed=1)


@pytest.mark.parametrize("name", SAMPLER_NAMES)
def test_only_the_samplers_on_a_brownian_path_need_torchsde(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "torchsde", None)
    monkeypatch.setitem(sys.modules, "scipy", None)
    latent = torch.zeros(1, 4, 2, 2)
    conds = [[[torch.zeros(1, 2, 3), {}]]] * 2
    refused = pytest.raises(PackageMissing, match="torchsde") if needs_torchsde(name) else contextlib.nullcontext()
    with refused:
        sample(Handle(AnalyticModel("eps")), prepare_noise(latent, 1), 2, 2.0, name, "normal", *conds, latent, seed=1)
