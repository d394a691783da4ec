"""Weight patches equal the recorded ones (goldens README, section H.1: 1e-5, half types one unit in the last place)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import comfy.lora
from comfy.errors import InputUnusable
from comfy.models.lora import LoraAdapter
from comfy.models.patches import calculate_weight, patched
from tests import goldens

TENSORS = goldens.tensors("h_lora_math")
CASES = {
    "lora_linear": "linear",
    "lora_linear_noalpha": "linear",
    "lora_conv3x3": "conv3x3",
    "locon_mid": "conv3x3",
    "diff": "linear",
    "set_weight": "linear",
    "diff_shape_mismatch_ignored": "linear",
}
OUTPUTS = [(name.split("/")[0], name.split("/")[2]) for name in TENSORS if name.split("/")[0] in CASES and name.split("/")[1] == "out"]


def part(case: str, suffix: str) -> Tensor | None:
    return TENSORS.get(f"{case}/lora/{suffix}")


def value_of(case: str) -> Any:
    up, down, alpha = (part(case, suffix) for suffix in (".lora_up.weight", ".lora_down.weight", ".alpha"))
    if up is not None and down is not None:
        return LoraAdapter(up, down, None if alpha is None else float(alpha), part(case, ".lora_mid.weight"))
    if part(case, ".set_weight") is not None:
        return ("set", (part(case, ".set_weight"),))
    return ("diff", (part(case, ".diff"),))


def apply(base: str, *patches: tuple[Any, ...]) -> Tensor:
    whole: Any = [(*patch, *(1.0, None, None)[len(patch) - 2 :]) for patch in patches]
    return calculate_weight(whole, TENSORS[f"base/{base}"].clone(), base)


@pytest.mark.parametrize(("case", "strength"), OUTPUTS)
def test_recorded(case: str, strength: str) -> None:
    patch_strength, _, model_strength = strength.partition("_strength_model")
    found = apply(CASES[case], (float(patch_strength), value_of(case), float(model_strength or 1)))
    goldens.assert_close(found, TENSORS[f"{case}/out/{strength}"], 1e-5)


@pytest.mark.parametrize("strength", ["1.0", "0.6", "-0.5"])
def test_bias(strength: str) -> None:
    found = apply("bias", (float(strength), ("diff", (part("diff", ".diff_b"),))))
    goldens.assert_close(found, TENSORS[f"diff/out_bias/{strength}"], 1e-5)


def test_patches_stack_in_order() -> None:
    found = apply("linear", (0.7, value_of("lora_linear")), (0.4, value_of("diff")))
    goldens.assert_close(found, TENSORS["stack/lora0.7_then_diff0.4"], 1e-5)


@pytest.mark.parametrize("i", [0, 1, 2])
def test_row_ranges(i: int) -> None:
    rows = TENSORS["base/linear"].shape[0]
    patch = (1.0, value_of("lora_linear"), 1.0, (0, rows * i, rows), None)
    goldens.assert_close(apply("qkv", patch), TENSORS[f"offset/qkv_slice{i}"], 1e-5)


def test_function_of_the_change() -> None:
    patch = (1.0, value_of("lora_linear"), 1.0, None, lambda delta: torch.cat(delta.chunk(2)[::-1]))
    goldens.assert_close(apply("linear", patch), TENSORS["function/swap_halves"], 1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types(dtype: torch.dtype) -> None:
    recorded = TENSORS[f"dtype/lora_on_{str(dtype).removeprefix('torch.')}"]
    weight = TENSORS["base/linear"].to(dtype)
    before = weight.clone()
    found = patched([(0.6, value_of("lora_linear"), 1.0, None, None)], weight, "x")
    assert found.dtype == dtype
    assert torch.equal(weight, before)  # the weight itself belongs to every lane
    units = (found.view(torch.int16).int() - recorded.view(torch.int16).int()).abs()
    assert int(units.max()) <= 1


def test_unknown_kinds() -> None:
    with pytest.raises(InputUnusable):
        apply("linear", (1.0, ("no_such_kind", (torch.ones(1),))))


def test_packs_replace_the_maths_by_assignment() -> None:
    original = comfy.lora.calculate_weight
    comfy.lora.calculate_weight = lambda patches, weight, key, *args: weight * 0 + 3
    try:
        assert bool((patched([(1.0, value_of("diff"), 1.0, None, None)], TENSORS["base/linear"], "x") == 3).all())
    finally:
        comfy.lora.calculate_weight = original
    goldens.assert_close(apply("linear", (1.0, value_of("diff"))), TENSORS["diff/out/1.0"], 1e-5)
