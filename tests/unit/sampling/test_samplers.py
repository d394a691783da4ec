"""Every sampler's whole trajectory against the recorded one (goldens B.2, B.3b)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from comfy.sampling.ksampler import sample
from comfy.sampling.noise import prepare_noise
from comfy.sampling.sampler import SAMPLER_NAMES
from tests.goldens import assert_close, facts, tensors
from tests.unit.sampling.fakes import AnalyticModel, Handle

SETS = facts("b_samplers")
EDGES = facts("b_edge_steps")


class Reports:
    """What the step callback was told."""

    def __init__(self, model: AnalyticModel) -> None:
        self.model = model
        self.steps: list[list[int]] = []
        self.x: list[Tensor] = []
        self.x0: list[Tensor] = []

    def __call__(self, step: int, x0: Tensor, x: Tensor, total: int) -> None:
        self.steps.append([step, len(self.model.calls)])
        self.x.append(x.clone())
        self.x0.append(x0.clone())


def run(
    family: str, name: str, setting: dict[str, Any], latent: Tensor, conds: dict[str, Tensor], **more: Any
) -> tuple[Tensor, AnalyticModel, Reports]:
    model = AnalyticModel(family)
    reports = Reports(model)
    final = sample(
        Handle(model),
        prepare_noise(latent, setting["seed"]),
        setting["steps"],
        setting["cfg"],
        name,
        setting["sched"][family],
        [[conds["pos"], {}]],
        [[conds["neg"], {}]],
        latent,
        callback=reports,
        seed=setting["seed"],
        **more,
    )
    return final, model, reports


def check(key: str, recorded: dict[str, Any], stored: dict[str, Tensor], final: Tensor, model: AnalyticModel, reports: Reports) -> None:
    assert_close(final, stored[f"{key}/final"], recorded["tol_final"], what="final")
    assert len(model.calls) == recorded["n_calls"]
    expected = torch.tensor(recorded["sigmas_of_calls"])
    assert_close(torch.tensor(model.sigmas[: len(expected)]), expected, 1e-4, relative=True, what="sigmas of calls")
    assert not model.sides or model.sides[0] == recorded["cond_or_uncond"]
    assert reports.steps == recorded["callback"]
    for tensor, actual in (("calls_x", model.calls), ("cb_x", reports.x), ("cb_denoised", reports.x0)):
        if f"{key}/{tensor}" in stored:
            kept = stored[f"{key}/{tensor}"]
            assert_close(torch.stack(actual[: len(kept)]), kept, recorded["tol_calls"], what=tensor)


def test_the_sampler_names_are_the_recorded_ones_in_order():
    assert facts("a_schedulers")["samplers"] == SAMPLER_NAMES


@pytest.mark.parametrize("key", list(SETS["cases"]))
def test_trajectory_is_the_recorded_one(key):
    group, family, name = key.split("/")
    setting, stored = SETS[group], tensors("b_samplers")
    if group == "C":
        latent = stored["latent_C"]
        more = {"start_step": setting["start"], "last_step": setting["end"], "force_full_denoise": False}
    else:
        latent, more = torch.zeros(setting["shape"]), {}
    final, model, reports = run(family, name, setting, latent, stored, **more)
    check(key, SETS["cases"][key], stored, final, model, reports)


@pytest.mark.parametrize("key", list(EDGES["cases"]))
def test_one_two_and_three_steps_end_as_recorded(key):
    steps, family, name = key.split("/")
    setting = {"seed": EDGES["seed"], "cfg": EDGES["cfg"], "sched": EDGES["scheduler"], "steps": int(steps[5:])}
    stored = tensors("b_edge_steps")
    final, model, reports = run(family, name, setting, torch.zeros(EDGES["shape"]), stored)
    check(key, EDGES["cases"][key], stored, final, model, reports)
