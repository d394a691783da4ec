"""Sampling types against the recorded tables and scalings (goldens A.1)."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from comfy.errors import InputUnusable
from comfy.sampling.parameterization import ModelSamplingDiscrete, make_model_sampling
from comfy.sampling.prediction import EPS
from tests.goldens import assert_close, facts, tensors
from tests.unit.sampling.kinds import sampling_type

TYPES = list(facts("a_schedulers")["types"])
SCALINGS = ("calculate_input", "calculate_denoised", "noise_scaling", "noise_scaling_maxdenoise", "inverse_noise_scaling")


def tolerance(name: str) -> float:
    return 3e-4 if name.startswith("cascade") else 1e-5


@pytest.mark.parametrize("name", TYPES)
def test_table_is_the_recorded_one(name):
    kind, recorded = sampling_type(name), facts("a_schedulers")["types"][name]
    table = kind.sigmas
    assert len(table) == recorded["len"]
    stride = max(len(table) // 1000, 1)
    assert_close(table[::stride], tensors("a_model_sampling")[f"{name}/table"], tolerance(name), relative=True, what=name)
    spots = torch.tensor(recorded["table_val"])
    assert_close(table[recorded["table_idx"]], spots, tolerance(name), relative=True, what=name)
    ends = torch.stack([kind.sigma_min, kind.sigma_max])
    assert_close(ends, torch.tensor([recorded["sigma_min"], recorded["sigma_max"]]), tolerance(name), relative=True, what=name)


@pytest.mark.parametrize("name", TYPES)
def test_percent_sigma_and_timestep_are_the_recorded_ones(name):
    kind, recorded, stored = sampling_type(name), facts("a_schedulers")["types"][name], tensors("a_model_sampling")
    percents = torch.tensor([kind.percent_to_sigma(p) for p in recorded["percent"]])
    assert_close(percents, torch.tensor(recorded["percent_to_sigma"]), tolerance(name), relative=True, what="percent")
    probe = stored[f"{name}/probe_sigma"]
    timesteps = stored[f"{name}/timestep_of_sigma"]
    assert_close(kind.timestep(probe), timesteps, tolerance(name), relative=True, what="timestep")
    assert_close(kind.sigma(timesteps), stored[f"{name}/sigma_of_timestep"], tolerance(name), relative=True, what="sigma")


@pytest.mark.parametrize("rule", SCALINGS)
@pytest.mark.parametrize("name", TYPES)
def test_scalings_are_the_recorded_ones(name, rule):
    kind, stored = sampling_type(name), tensors("a_model_sampling")
    sigma = stored[f"{name}/probe_sigma"]
    x, output, latent = (stored[key][: len(sigma)] for key in ("_x", "_model_output", "_latent"))
    actual = {
        "calculate_input": lambda: kind.calculate_input(sigma, x),
        "calculate_denoised": lambda: kind.calculate_denoised(sigma, output, x),
        "noise_scaling": lambda: kind.noise_scaling(sigma, x, latent),
        "noise_scaling_maxdenoise": lambda: kind.noise_scaling(sigma, x, latent, True),
        "inverse_noise_scaling": lambda: kind.inverse_noise_scaling(sigma, x),
    }[rule]()
    expected = stored[f"{name}/{rule}"]
    finite = expected.isfinite()
    assert torch.equal(actual.isfinite(), finite)
    assert torch.equal(actual[~finite], expected[~finite])
    # near zero the sums cancel; the tolerance is relative to what was summed
    scale = max(1.0, float(expected[finite].abs().max()))
    assert_close(actual[finite], expected[finite], tolerance(name) * scale, what=rule)


@pytest.mark.parametrize("name", TYPES)
def test_a_sampling_type_survives_pickle_and_deepcopy(name):
    kind = sampling_type(name)
    for twin in (pickle.loads(pickle.dumps(kind)), copy.deepcopy(kind)):
        assert type(twin) is type(kind)
        assert torch.equal(twin.sigmas, kind.sigmas)
        assert twin.percent_to_sigma(0.4) == kind.percent_to_sigma(0.4)


def test_a_pack_joins_table_and_prediction_by_inheritance():
    class Mine(ModelSamplingDiscrete, EPS):
        pass

    assert torch.equal(Mine().sigmas, make_model_sampling("eps").sigmas)


def test_an_unknown_kind_is_a_typed_error():
    with pytest.raises(InputUnusable, match="sampling type"):
        make_model_sampling("perpetual")
