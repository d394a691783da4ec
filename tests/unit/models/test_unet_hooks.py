"""Patches, replacements and control residuals act at their places in the UNet (contract: custom-nodes.md 6, models.md 4)."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from tests.data.networks import cases

UNET: Any = cases.build("unet_sd1")
INPUTS = cases.unet_inputs("unet_sd1")
PLAIN: Tensor = UNET(**INPUTS)
OPENAIMODEL = sys.modules[UNetModel.__module__]


def run(options: dict[str, Any] | None = None, **kwargs: Any) -> Tensor:
    return UNET(**INPUTS, transformer_options=options, **kwargs)


def test_patches_see_each_block_once_in_order() -> None:
    seen: list[tuple[str, int]] = []

    def look(h: Tensor, options: dict[str, Any]) -> Tensor:
        seen.append(options["block"])
        assert options["original_shape"] == [2, 4, 10, 6]
        return h

    def look_output(h: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        seen.append(options["block"])
        return h, skip

    given = {"patches": {"input_block_patch": [look], "output_block_patch": [look_output]}}
    assert torch.equal(run(given), PLAIN)
    assert seen == [("input", i) for i in range(9)] + [("output", i) for i in range(9)]
    assert list(given) == ["patches"]  # what the caller gave stays as it was


@pytest.mark.parametrize("name", ["attn1", "attn2"])
def test_attention_patches(name: str) -> None:
    places: list[Any] = []

    def double_value(n: Tensor, context: Tensor, value: Tensor, extra: dict[str, Any]) -> Any:
        places.append((*extra["block"], extra["block_index"]))
        assert (extra["n_heads"], extra["dim_head"]) == (8, n.shape[-1] // 8)
        return n, context, value * 2

    def halve(n: Tensor, extra: dict[str, Any]) -> Tensor:
        return n / 2

    patched = run({"patches": {f"{name}_patch": [double_value]}})
    assert not torch.equal(patched, PLAIN)
    inputs = [("input", i, 0) for i in (1, 2, 4, 5)]
    assert places == [*inputs, ("middle", 0, 0), *[("output", i, 0) for i in (3, 4, 5, 6, 7, 8)]]
    assert not torch.equal(run({"patches": {f"{name}_output_patch": [halve]}}), PLAIN)


def test_replacing_by_the_same_computation_changes_nothing() -> None:
    from comfy.ldm.modules.attention import optimized_attention

    def same(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        return optimized_attention(q, k, v, extra["n_heads"])

    everywhere = {("middle", 0): same, ("input", 1): same, ("output", 8, 0): same}
    assert torch.equal(run({"patches_replace": {"attn1": everywhere, "attn2": everywhere}}), PLAIN)


def test_replacing_one_block() -> None:
    seen: list[Any] = []

    def value_alone(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        seen.append(extra["block"])
        return v

    assert not torch.equal(run({"patches_replace": {"attn1": {("middle", 0): value_alone}}}), PLAIN)
    run({"patches_replace": {"attn1": {("middle", 0, 1): value_alone}}})  # there is no second transformer block
    assert seen == [("middle", 0)]


def test_middle_and_emb_patches() -> None:
    assert not torch.equal(run({"patches": {"middle_patch": [lambda x, extra: x * 1.5]}}), PLAIN)
    widths: list[int] = []

    def look(emb: Tensor, width: int, options: dict[str, Any]) -> Tensor:
        widths.append(width)
        return emb * 0.5

    assert not torch.equal(run({"patches": {"emb_patch": [look]}}), PLAIN)
    assert widths == [32]


def test_after_skip_changes_the_way_down_but_not_the_skip() -> None:
    def only_last(h: Tensor, options: dict[str, Any]) -> Tensor:
        return h * 0 if options["block"] == ("input", 8) else h

    before = run({"patches": {"input_block_patch": [only_last]}})
    after = run({"patches": {"input_block_patch_after_skip": [only_last]}})
    assert not torch.equal(before, after)


def skips() -> list[Tensor]:
    """Each input block's output."""
    found: list[Tensor] = []

    def look(h: Tensor, options: dict[str, Any]) -> Tensor:
        found.append(h)
        return h

    run({"patches": {"input_block_patch": [look]}})
    return found


def test_control_output_is_taken_from_the_end_and_added_to_the_skips() -> None:
    residuals: list[Tensor | None] = [0.1 * torch.ones_like(skip) for skip in skips()]
    residuals[3] = None
    added: list[Tensor] = []

    def look(h: Tensor, skip: Tensor, options: dict[str, Any]) -> Any:
        added.append(skip)
        return h, skip

    control = {"output": residuals}
    run({"patches": {"output_block_patch": [look]}}, control=control)
    for i, (with_control, without) in enumerate(zip(added, reversed(skips()))):
        expected = 0.0 if i == 5 else 0.1  # the sixth from the end is the fourth of nine
        assert torch.allclose(with_control - without, torch.full_like(without, expected), atol=1e-5)
    assert len(residuals) == 9  # the caller's list stays whole for the next step


def test_control_middle_and_input() -> None:
    middle = torch.ones_like(skips()[-1])
    assert not torch.equal(run(control={"middle": [middle]}), PLAIN)
    first: list[Tensor] = []

    def look(h: Tensor, options: dict[str, Any]) -> Tensor:
        first.append(h)
        return h

    shapes = [s.shape for s in skips()]
    residuals: list[Tensor | None] = [None] * 8 + [torch.ones(shapes[0])]  # the last of the list is the first block's
    run({"patches": {"input_block_patch": [look]}}, control={"input": residuals})
    assert torch.allclose(first[0] - skips()[0], torch.ones(shapes[0]), atol=1e-5)


def test_a_residual_of_another_size_is_an_error() -> None:
    with pytest.raises(RuntimeError):
        run(control={"middle": [torch.ones(2, 64, 3, 3)]})


def test_vector_conditioning_must_fit_the_model() -> None:
    with pytest.raises(ValueError, match="no vector"):
        run(y=torch.ones(2, 8))
    other = cases.build("unet_sdxl")
    with pytest.raises(ValueError, match="takes a vector"):
        other(**{name: t for name, t in cases.unet_inputs("unet_sdxl").items() if name != "y"})


@pytest.mark.parametrize("name", ["forward_timestep_embed", "apply_control"])
def test_packs_replace_functions_by_assignment(name: str) -> None:
    original = getattr(OPENAIMODEL, name)
    calls: list[int] = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return original(*args, **kwargs)

    setattr(OPENAIMODEL, name, counted)
    try:
        assert torch.equal(run(), PLAIN)
    finally:
        setattr(OPENAIMODEL, name, original)
    assert len(calls) == 19  # 9 blocks down, the middle, 9 up
    run()
    assert len(calls) == 19
