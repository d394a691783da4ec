"""Schedulers, schedule nodes' maths and sigma lists against the recorded ones (goldens A.2, A.3)."""

from __future__ import annotations

import sys

import pytest
import torch

from comfy.errors import InputUnusable, PackageMissing
from comfy.sampling import curves
from comfy.sampling.schedules import SCHEDULER_NAMES, beta, calculate_sigmas, partial_sigmas
from tests.goldens import assert_close, facts, tensors
from tests.unit.sampling.kinds import sampling_type

LISTS: dict[str, list[str]] = {}
for _key in tensors("a_sigmas"):
    LISTS.setdefault("/".join(_key.split("/")[:2]), []).append(_key)
CASES = sorted(LISTS)
WIDE = ("sd15_vpred_zsnr", "stableaudio_contv", "cascade_shift2")
NODES = facts("a_schedulers")["scheduler_nodes"]
MANIP = tensors("a_scheduler_nodes")


def test_the_scheduler_names_are_the_recorded_ones_in_order():
    assert facts("a_schedulers")["schedulers"] == SCHEDULER_NAMES


@pytest.mark.parametrize("case", CASES)
def test_schedules_are_the_recorded_ones(case):
    name, scheduler = case.split("/")
    kind = sampling_type(name)
    tolerance = 2e-3 if scheduler == "kl_optimal" or name in WIDE else 2e-5
    for key in LISTS[case]:
        _, _, steps, denoise, *cut = key.split("/")
        count, part = int(steps[1:]), float(denoise[1:])
        if cut or part < 1.0:
            actual = partial_sigmas(kind, scheduler, count, part)
        else:
            actual = calculate_sigmas(kind, scheduler, count)
        assert_close(actual, tensors("a_sigmas")[key], tolerance, relative=True, what=key)


def test_denoise_zero_is_an_empty_list():
    assert partial_sigmas(sampling_type("sd15_eps"), "normal", 10, 0.0).shape == (0,)


@pytest.mark.parametrize(("scheduler", "steps"), [("nowhere", 4), ("normal", 0)])
def test_an_unusable_schedule_is_a_typed_error(scheduler, steps):
    with pytest.raises(InputUnusable):
        calculate_sigmas(sampling_type("sd15_eps"), scheduler, steps)


def test_beta_without_scipy_says_which_package_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(PackageMissing, match="scipy"):
        calculate_sigmas(sampling_type("sd15_eps"), "beta", 4)
    for scheduler in SCHEDULER_NAMES:  # the others do without
        if scheduler != "beta":
            assert len(calculate_sigmas(sampling_type("sd15_eps"), scheduler, 4)) > 4


CURVES = {
    "KarrasScheduler": lambda p: curves.karras(p["steps"], p["sigma_min"], p["sigma_max"], p["rho"]),
    "ExponentialScheduler": lambda p: curves.exponential(p["steps"], p["sigma_min"], p["sigma_max"]),
    "PolyexponentialScheduler": lambda p: curves.polyexponential(p["steps"], p["sigma_min"], p["sigma_max"], p["rho"]),
    "LaplaceScheduler": lambda p: curves.laplace(p["steps"], p["sigma_min"], p["sigma_max"], p["mu"], p["beta"]),
    "VPScheduler": lambda p: curves.variance_preserving(p["steps"], p["beta_d"], p["beta_min"], p["eps_s"]),
    "BetaSamplingScheduler": lambda p: beta(sampling_type(p["type"]), p["steps"], p["alpha"], p["beta"]),
    "SDTurboScheduler": lambda p: curves.turbo(sampling_type("sd15_eps"), p["steps"], p["denoise"]),
}


@pytest.mark.parametrize("key", [key for key in NODES if key.split("/")[0] in CURVES])
def test_curve_is_the_recorded_one(key):
    assert_close(CURVES[key.split("/")[0]](NODES[key]), MANIP[key], 1e-5, relative=True, what=key)


def manipulated(key: str) -> torch.Tensor:
    sigmas = MANIP["manip/in"]
    _, operation, *values = key.split("/")
    if operation == "SplitSigmas":
        return curves.split(sigmas, int(values[0]))[values[1] == "low"]
    if operation == "SplitSigmasDenoise":
        return curves.split_denoise(sigmas, float(values[0]))[values[1] == "low"]
    if operation == "FlipSigmas":
        return curves.flip(sigmas)
    if operation == "SetFirstSigma":
        return curves.set_first(sigmas, float(values[0]))
    return curves.extend(sigmas, int(values[0]), float(values[1]), float(values[2]), values[3])


@pytest.mark.parametrize("key", [key for key in MANIP if key.startswith("manip/") and key != "manip/in"])
def test_manipulated_sigmas_are_the_recorded_ones(key):
    assert_close(manipulated(key), MANIP[key], 1e-5, relative=True, what=key)
