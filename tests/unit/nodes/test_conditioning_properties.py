"""Conditioning nodes that set several properties at once equal the chain of nodes that set one each."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from comfy.nodes import conditioning as plain
from comfy.nodes.conventions import Conditioning
from comfy_extras import nodes_default_conditioning, nodes_hooks
from comfy_extras.custom_sampling import guiders
from comfy_extras.nodes_cond import T5TokenizerOptions
from tests.hashed_weights import hashed
from tests.unit.sampling.fakes import AnalyticModel, Handle
from tests.unit.sampling.test_guidance import Evaluate

X = hashed((1, 4, 12, 16), 1)
MASK = hashed((96, 128), 2).abs()
SIGMAS = [12.0, 2.5, 0.3]


CLASSES: dict[str, Any] = {**nodes_hooks.NODE_CLASS_MAPPINGS, **nodes_default_conditioning.NODE_CLASS_MAPPINGS}


def node(name: str, **inputs: Any) -> tuple[Any, ...]:
    return tuple(getattr(CLASSES[name](), CLASSES[name].FUNCTION)(**inputs))


def cond(salt: int) -> Conditioning:
    return [[hashed((1, 4, 3), salt), {}]]


def predictions(positive: Conditioning, negative: Conditioning) -> torch.Tensor:
    guider = guiders.CFGGuider().get_guider(Handle(AnalyticModel("eps")), positive, negative, 3.0)[0]
    probe = Evaluate(X)
    guider.sample(X, torch.zeros_like(X), probe, torch.tensor(SIGMAS))
    return torch.stack(probe.out)


def chained(given: Conditioning, mask: torch.Tensor | None, area: str, timesteps: tuple[float, float] | None) -> Conditioning:
    if mask is None:
        (given,) = plain.ConditioningSetAreaStrength().append(given, 0.7)
    else:
        (given,) = plain.ConditioningSetMask().append(given, mask, area, 0.7)
    if timesteps is not None:
        (given,) = plain.ConditioningSetTimestepRange().set_range(given, *timesteps)
    return given


@pytest.mark.parametrize("timesteps", [None, (0.2, 0.9)])
@pytest.mark.parametrize("area", ["default", "mask bounds"])
@pytest.mark.parametrize("mask", [None, MASK, MASK[None]], ids=["no mask", "hw", "bhw"])
def test_properties_are_those_of_the_single_nodes(mask: Any, area: str, timesteps: Any) -> None:
    positive, negative = chained(cond(3), mask, area, timesteps), chained(cond(4), mask, area, timesteps)
    expected = predictions([*cond(5), *positive], [*cond(6), *negative])
    common = {"strength": 0.7, "set_cond_area": area, "mask": mask, "timesteps": timesteps}
    behind = [node("ConditioningSetPropertiesAndCombine", cond=cond(a), cond_NEW=cond(b), **common)[0] for a, b in ((5, 3), (6, 4))]
    assert torch.equal(predictions(behind[0], behind[1]), expected)
    sides = {"positive_NEW": cond(3), "negative_NEW": cond(4)}
    pair = node("PairConditioningSetPropertiesAndCombine", positive=cond(5), negative=cond(6), **sides, **common)
    assert torch.equal(predictions(*pair), expected)
    alone = node("PairConditioningSetProperties", **sides, **common)
    assert torch.equal(predictions(*alone), predictions(positive, negative))
    single = [node("ConditioningSetProperties", cond_NEW=cond(salt), **common)[0] for salt in (3, 4)]
    assert torch.equal(predictions(single[0], single[1]), predictions(positive, negative))
    joined = node("PairConditioningCombine", positive_A=cond(5), negative_A=cond(6), positive_B=alone[0], negative_B=alone[1])
    assert torch.equal(predictions(*joined), expected)


def test_a_default_counts_where_the_others_do_not() -> None:
    """The other entry covers the left half: there the default weighs nothing, on the right it is alone."""
    left = torch.zeros(12, 16)
    left[:, :8] = 1.0
    (positive,) = plain.ConditioningSetMask().append(cond(3), left, "default", 1.0)
    (both,) = node("ConditioningSetDefaultCombine", cond=positive, cond_DEFAULT=cond(5))
    found = predictions(both, cond(4))
    assert torch.equal(found[..., :8], predictions(cond(3), cond(4))[..., :8])
    assert torch.equal(found[..., 8:], predictions(cond(5), cond(4))[..., 8:])
    sides = {"positive": positive, "negative": cond(4), "positive_DEFAULT": cond(5), "negative_DEFAULT": []}
    pair = node("PairConditioningSetDefaultCombine", **sides)
    assert torch.equal(predictions(*pair), found)


def test_hooks_of_a_pack_are_kept_and_what_came_in_stays_as_it_is() -> None:
    given = cond(3)
    (made,) = node("ConditioningSetProperties", cond_NEW=given, strength=1.0, set_cond_area="default", hooks=("hook",))
    assert made[0][1]["hooks"] == ("hook",)
    (made,) = node("ConditioningSetDefaultCombine", cond=[], cond_DEFAULT=given, hooks=("hook",))
    assert made[0][1] == {"default": True, "hooks": ("hook",)}
    (made,) = node("ConditioningSetDefaultCombine", cond=[], cond_DEFAULT=made, hooks=("another",))
    assert made[0][1]["hooks"] == ("hook", "another")
    assert given[0][1] == {}


def test_a_range_comes_with_its_before_and_after() -> None:
    assert node("ConditioningTimestepsRange", start_percent=0.25, end_percent=0.75) == ((0.25, 0.75), (0.0, 0.25), (0.75, 1.0))


def test_tokenizer_options_are_a_copys() -> None:
    class Clip:
        def __init__(self) -> None:
            self.options: dict[str, Any] = {}

        def clone(self) -> Clip:
            return Clip()

        def set_tokenizer_option(self, name: str, value: Any) -> None:
            self.options[name] = value

    clip = Clip()
    result = T5TokenizerOptions.execute(clip, 1, 512).result
    assert result is not None
    changed = result[0]
    assert clip.options == {}
    assert (changed.options["t5xxl_min_padding"], changed.options["t5xxl_min_length"]) == (1, 512)
