"""Weights, areas, ranges and guidance rules against the recorded predictions (goldens D.1, D.2)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from comfy.nodes import conditioning as nodes
from comfy.sampling import areas
from comfy.sampling.guider import CFGGuider
from comfy.sampling.sampler import Sampler
from comfy_extras import (
    nodes_apg,
    nodes_cfg,
    nodes_default_conditioning,
    nodes_eps,
    nodes_fresca,
    nodes_latent,
    nodes_mahiro,
    nodes_model_advanced,
    nodes_perpneg,
    nodes_tcfg,
)
from comfy_extras.custom_sampling import guiders
from tests.goldens import assert_close, facts, tensors
from tests.unit.sampling.fakes import AnalyticModel, Handle

RECORD, STORED = facts("d_guidance"), tensors("d_guidance")
VARIANTS = {
    "CFGZeroStar": nodes_cfg.CFGZeroStar,
    "CFGNorm": nodes_cfg.CFGNorm,
    "APG": nodes_apg.APG,
    "APG_nonorm": nodes_apg.APG,
    "TCFG": nodes_tcfg.TCFG,
    "Mahiro": nodes_mahiro.Mahiro,
    "FreSca": nodes_fresca.FreSca,
    "EpsilonScaling": nodes_eps.EpsilonScaling,
    "RescaleCFG": nodes_model_advanced.RescaleCFG,
}


class Evaluate(Sampler):
    """Asks the guider for x at each sigma."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.out: list[Tensor] = []
        self.rows: list[int] = []
        self.conds: dict[str, list[dict[str, Any]]] = {}

    def sample(self, model_wrap: Any, sigmas: Tensor, extra_args: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        model = model_wrap.inner_model
        self.conds = model_wrap.conds
        for sigma in sigmas:
            before = sum(model.rows)
            self.out.append(model_wrap(self.x, sigma.expand(len(self.x)), **extra_args))
            self.rows.append(sum(model.rows) - before)
        return self.x


def tokens(name: str) -> Tensor:
    return STORED[f"cond/{name}"]


def mask_named(name: str) -> Tensor:
    pixels = STORED["mask_px"]
    return {
        "mask_px": pixels,
        "1 - mask_px": 1 - pixels,
        "zero mask": torch.zeros_like(pixels),
        "mask_latent_b2": STORED["mask_latent_b2"],
    }[name]


def entry(spec: dict[str, Any], derived: Any) -> list[list[Any]]:
    """One recorded entry, made with the nodes that a workflow would use."""
    cond = derived if spec["cond"] == "derived" else [[tokens(spec["cond"]), {}]]
    area = spec.get("area_h_w_y_x")
    strength = spec.get("strength", 1.0)
    if area is not None and area[0] == "percentage":
        _, h, w, y, x = area
        (cond,) = nodes.ConditioningSetAreaPercentage().append(cond, width=w, height=h, x=x, y=y, strength=strength)
    elif area is not None:
        h, w, y, x = (8 * n for n in area)
        (cond,) = nodes.ConditioningSetArea().append(cond, width=w, height=h, x=x, y=y, strength=strength)
    elif "strength" in spec:
        (cond,) = nodes.ConditioningSetAreaStrength().append(cond, strength)
    if "mask" in spec:
        where = "mask bounds" if spec["set_area_to_bounds"] else "default"
        (cond,) = nodes.ConditioningSetMask().append(cond, mask_named(spec["mask"]), where, spec["mask_strength"])
    if "start_percent" in spec:
        (cond,) = nodes.ConditioningSetTimestepRange().set_range(cond, spec["start_percent"], spec["end_percent"])
    return cond


def derived_of(name: str, params: dict[str, Any]) -> Any:
    if name == "average":
        to, other = [[tokens(params["to"]), {}]], [[tokens(params["from_"]), {}]]
        return nodes.ConditioningAverage().addWeighted(to, other, params["to_strength"])[0]
    if name == "concat":
        return nodes.ConditioningConcat().concat([[tokens(params["to"]), {}]], [[tokens(params["from_"]), {}]])[0]
    if name == "zero_out":
        return nodes.ConditioningZeroOut().zero_out([[tokens("pA"), {}]])[0]
    return None


def patched(name: str, handle: Handle, params: dict[str, Any]) -> Handle:
    """The handle with the case's guidance rule."""
    if name in VARIANTS:
        cls = VARIANTS[name]
        return cls().patch(handle, **params)[0] if hasattr(cls, "patch") else cls.execute(model=handle, **params).result[0]
    if name == "PerpNeg_node":
        empty = [[tokens(params["empty_conditioning"]), {}]]
        return nodes_perpneg.PerpNeg.execute(handle, empty, params["neg_scale"]).result[0]
    operations = {"TonemapReinhardCFG": nodes_latent.LatentOperationTonemapReinhard, "SharpenCFG": nodes_latent.LatentOperationSharpen}
    if name in operations:
        operation = operations[name].execute(**params).result[0]
        return nodes_latent.LatentApplyOperationCFG.execute(handle, operation).result[0]
    return handle


def guider_of(name: str, handle: Handle, case: dict[str, Any]) -> CFGGuider:
    params = case.get("params", {})
    named = {key: [[tokens(value), {}]] for key, value in params.items() if isinstance(value, str) and f"cond/{value}" in STORED}
    if name == "basic_guider":
        return guiders.BasicGuider().get_guider(handle, named["conditioning"])[0]
    if name.startswith("DualCFG"):
        numbers = {key: params[key] for key in ("cfg_conds", "cfg_cond2_negative", "style")}
        return guiders.DualCFGGuider().get_guider(handle, named["cond1"], named["cond2"], named["negative"], **numbers)[0]
    if name == "PerpNegGuider":
        return nodes_perpneg.PerpNegGuider.execute(handle, **named, cfg=case["cfg"], neg_scale=params["neg_scale"]).result[0]
    derived = derived_of(name, params)
    sides = []
    for side in ("positive", "negative"):
        combined: list[Any] = []
        for spec in case[side]:
            fallback = nodes_default_conditioning.ConditioningSetDefaultCombine().set_default_and_combine
            join = fallback if spec.get("default") else nodes.ConditioningCombine().combine
            (combined,) = join(combined, entry(spec, derived))
        sides.append(combined)
    return guiders.CFGGuider().get_guider(patched(name, handle, params), *sides, case["cfg"])[0]


@pytest.mark.parametrize("key", list(RECORD["cases"]))
def test_prediction_is_the_recorded_one(key):
    family, name = key.split("/")
    case = RECORD["cases"][key]
    model = AnalyticModel(family)
    handle = Handle(model)
    if name == "cfg1_optimisation_disabled":
        handle.model_options["disable_cfg1_optimization"] = True
    guider = guider_of(name, handle, case)
    seen: list[tuple[Tensor, Tensor]] = []

    def see(args: dict[str, Any]) -> Tensor:
        seen.append((args["cond_denoised"], args["uncond_denoised"]))
        return args["denoised"]

    if f"{key}/cond" in STORED:
        guider.model_options["sampler_post_cfg_function"] = [see]
    x = STORED[f"x_batch2/{family}" if "x_batch2" in case.get("desc", "") else f"x/{family}"]
    probe = Evaluate(x)
    guider.sample(x, torch.zeros_like(x), probe, torch.tensor(case["sigmas"]))
    expected = STORED[f"{key}/denoised"]
    tolerance = 2e-4 * max(1.0, float(expected.abs().max()))
    assert_close(torch.stack(probe.out), expected, tolerance, what="denoised")
    assert probe.rows == case["rows_evaluated_per_sigma"]
    for k, which in enumerate(("cond", "uncond")):
        if f"{key}/{which}" in STORED:
            assert_close(torch.stack([pair[k] for pair in seen]), STORED[f"{key}/{which}"], tolerance, what=which)
    check_conds(probe.conds, case, key, x)


def check_conds(conds: dict[str, list[dict[str, Any]]], case: dict[str, Any], key: str, x: Tensor) -> None:
    for side, recorded in case["conds_after_preprocessing"].items():
        ours = [
            {
                "area": list(one["area"]) if one.get("area") is not None else None,
                "timestep_start": one.get("timestep_start"),
                "timestep_end": one.get("timestep_end"),
            }
            for one in conds[side]
        ]
        assert [one["area"] for one in ours] == [one["area"] for one in recorded]
        for mine, theirs in zip(ours, recorded):
            for end in ("timestep_start", "timestep_end"):
                assert (mine[end] is None) == (theirs[end] is None)
                assert mine[end] is None or mine[end] == pytest.approx(theirs[end], rel=1e-5)
    for k in range(2):
        if f"{key}/mult{k}" in STORED:
            piece = areas.piece_of(conds["positive"][k], x, case["sigmas"][0])
            assert_close(piece.mult[0, 0], STORED[f"{key}/mult{k}"], 2e-4, what=f"mult{k}")


def conditioning(name: str) -> list[list[Any]]:
    stored = tensors("d_cond_algebra")
    options = {"pooled_output": stored[f"in/{name}/pooled"]} if f"in/{name}/pooled" in stored else {}
    return [[stored[f"in/{name}/cond"], options]]


STRENGTH = facts("d_cond_algebra")["average_strength_to"]


def average(to: list[list[Any]], other: str) -> Any:
    return nodes.ConditioningAverage().addWeighted(to, conditioning(other), STRENGTH)


ALGEBRA = {
    "average_a_from_b": lambda: average(conditioning("a"), "b"),
    "average_a_from_c": lambda: average(conditioning("a"), "c"),
    "average_b_from_a": lambda: average(conditioning("b"), "a"),
    "average_c_from_a": lambda: average(conditioning("c"), "a"),
    "average_list2_from_b": lambda: nodes.ConditioningAverage().addWeighted(
        conditioning("a") + conditioning("c"), conditioning("b"), STRENGTH
    ),
    "concat_a_b": lambda: nodes.ConditioningConcat().concat(conditioning("a"), conditioning("b")),
    "concat_list2_b": lambda: nodes.ConditioningConcat().concat(conditioning("a") + conditioning("c"), conditioning("b")),
    "zeroout_a": lambda: nodes.ConditioningZeroOut().zero_out(conditioning("a")),
}


def test_every_recorded_operation_is_tested():
    assert {key.split("/")[0] for key in tensors("d_cond_algebra")} - {"in"} == set(ALGEBRA)


@pytest.mark.parametrize("name", list(ALGEBRA))
def test_conditioning_algebra_is_the_recorded_one(name):
    stored = tensors("d_cond_algebra")
    (result,) = ALGEBRA[name]()
    assert len(result) == len({key.split("/")[1] for key in stored if key.startswith(f"{name}/")})
    for i, (cond, options) in enumerate(result):
        assert_close(cond, stored[f"{name}/{i}/cond"], 1e-6, what=name)
        assert ("pooled_output" in options) == (f"{name}/{i}/pooled" in stored)
        if "pooled_output" in options:
            assert_close(options["pooled_output"], stored[f"{name}/{i}/pooled"], 1e-6, what=name)


def test_a_batch_that_does_not_fit_the_budget_gives_the_same_prediction():
    x = STORED["x/eps"]
    results, rows = [], []
    for budget in (None, 1.5):
        model = AnalyticModel("eps")
        if budget is not None:
            model.batch_budget_bytes = budget
            model.memory_required = lambda shape: shape[0]
        sides = [[[tokens("pA"), {}], [tokens("pB"), {}]], [[tokens("nA"), {}]]]
        guider = guiders.CFGGuider().get_guider(Handle(model), *sides, 4.0)[0]
        probe = Evaluate(x)
        guider.sample(x, torch.zeros_like(x), probe, torch.tensor([2.5]))
        results.append(probe.out[0])
        rows.append(model.rows)
    assert rows == [[3], [1, 1, 1]]
    assert torch.allclose(*results, atol=1e-6)
