"""Every recorded file form changes its weight as recorded (goldens README, section H.1: 1e-5)."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from comfy.models.lora.formats import converted, load_lora
from comfy.models.patches import calculate_weight
from tests import goldens

TENSORS = goldens.tensors("h_lora_math")
FACTS = goldens.facts("h_lora_math")["math"]
TOLERANCE = 1e-5
OUTPUTS = sorted((name.split("/")[0], name.split("/")[2]) for name in TENSORS if name.split("/")[1] == "out")
BIASES = sorted((name.split("/")[0], name.split("/")[2]) for name in TENSORS if name.split("/")[1] == "out_bias")


def lora(case: str) -> dict[str, Tensor]:
    start = f"{case}/lora/"
    return {"x" + name[len(start) :]: tensor for name, tensor in TENSORS.items() if name.startswith(start)}


def base(case: str) -> Tensor:
    if case == "w_norm_b_norm":
        return TENSORS["base/bias"]  # of a norm: its weight has one axis, and the recording used the same numbers for both
    shape = TENSORS[f"{case}/out/1.0"].shape
    name = "linear" if case == "reshape_weight" else {(8, 8): "square8", (8, 6): "linear", (8, 6, 3, 3): "conv3x3"}[tuple(shape)]
    return TENSORS[f"base/{name}"]


def apply(case: str, key: str, weight: Tensor, strength: str) -> Tensor:
    patches = load_lora(lora(case), {"x": "m.weight"}, log_missing=False)
    assert sorted(patches) == FACTS[case]["patched_keys"]
    patch, _, model = strength.partition("_strength_model")
    whole: Any = [(float(patch), patches[key], float(model or 1), None, None)]
    return calculate_weight(whole, weight.clone(), key)


@pytest.mark.parametrize(("case", "strength"), OUTPUTS)
def test_weights(case: str, strength: str) -> None:
    recorded = TENSORS.get(f"{case}/out_math/{strength}", TENSORS[f"{case}/out/{strength}"])
    goldens.assert_close(apply(case, "m.weight", base(case), strength), recorded, TOLERANCE)


@pytest.mark.parametrize(("case", "strength"), BIASES)
def test_biases(case: str, strength: str) -> None:
    goldens.assert_close(apply(case, "m.bias", TENSORS["base/bias"], strength), TENSORS[f"{case}/out_bias/{strength}"], TOLERANCE)


@pytest.mark.parametrize("case", ["lora_linear", "loha_linear", "lokr_full", "glora_new", "oft", "boft", "dora_out_axis"])
def test_what_does_not_fit_is_left_out(case: str, caplog: pytest.LogCaptureFixture) -> None:
    weight = torch.arange(35.0).view(7, 5)
    assert torch.equal(apply(case, "m.weight", weight, "1.0"), weight)
    assert "m.weight" in caplog.text


@pytest.mark.parametrize("case", FACTS)
def test_adapters_pickle(case: str) -> None:
    value = load_lora(lora(case), {"x": "m.weight"}, log_missing=False)["m.weight"]
    again = pickle.loads(pickle.dumps(value))
    assert type(again) is type(value)


def test_names_that_belong_to_no_weight_are_told(caplog: pytest.LogCaptureFixture) -> None:
    load_lora({"y.lora_up.weight": torch.ones(1, 1)}, {"x": "m.weight"})
    assert "y.lora_up.weight" in caplog.text


def test_control_loras_get_the_recorded_names() -> None:
    facts = goldens.facts("h_lora_keys")["_converters"]["bfl_control"]
    tensors = {name: torch.zeros(1) for name in facts["in"]}
    for name, shape in facts["out"].items():
        original = name.removeprefix("diffusion_model.").removesuffix(".set_weight").replace(".diff_b", ".lora_B.bias")
        if original in tensors:
            tensors[original] = torch.zeros(shape)
    found = converted(tensors)
    assert set(found) == set(facts["out"])
    assert found["diffusion_model.img_in.reshape_weight"].tolist() == facts["out"]["diffusion_model.img_in.reshape_weight"]


def test_wan_fun_loras_get_the_recorded_names() -> None:
    facts = goldens.facts("h_lora_keys")["_converters"]["wan_fun"]
    assert sorted(converted(dict.fromkeys(facts["in"], torch.zeros(1)))) == sorted(facts["out"])
