"""Layers of the two namespaces compute what torch's do, and cast when they are asked to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from comfy.ops import cast_bias_weight, cast_to, cast_to_input, disable_weight_init, manual_cast, pick_operations
from tests.hashed_weights import hashed

LAYERS: dict[str, tuple[tuple[Any, ...], tuple[int, ...]]] = {
    "Linear": ((6, 4), (2, 6)),
    "Conv1d": ((4, 6, 3), (2, 4, 7)),
    "Conv2d": ((4, 6, 3, 2, 1), (2, 4, 7, 5)),
    "Conv3d": ((4, 6, 3), (2, 4, 4, 5, 4)),
    "ConvTranspose1d": ((4, 6, 3, 2), (2, 4, 7)),
    "ConvTranspose2d": ((4, 6, 3, 2), (2, 4, 5, 5)),
    "GroupNorm": ((2, 4), (2, 4, 6)),
    "LayerNorm": ((6,), (2, 6)),
    "RMSNorm": ((6,), (2, 6)),
}


def filled(layer: Any, salt: int = 1) -> Any:
    for i, parameter in enumerate(layer.parameters()):
        parameter.data = hashed(parameter.shape, salt + i)
    return layer.requires_grad_(False)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("namespace", [disable_weight_init, manual_cast])
def test_layers_equal_torchs(namespace: Any, name: str) -> None:
    args, shape = LAYERS[name]
    x = hashed(shape, 9)
    assert torch.equal(filled(getattr(namespace, name)(*args))(x), filled(getattr(nn, name)(*args))(x))


@pytest.mark.parametrize("name", LAYERS)
def test_manual_cast_computes_in_the_inputs_dtype(name: str) -> None:
    args, shape = LAYERS[name]
    x = hashed(shape, 9)
    rounded = filled(getattr(manual_cast, name)(*args)).to(torch.bfloat16)
    expected = filled(getattr(nn, name)(*args)).to(torch.bfloat16).float()
    assert rounded(x).dtype == torch.float32
    assert torch.equal(rounded(x), expected(x))


def test_embedding_gives_the_dtype_asked_for() -> None:
    ids = torch.tensor([0, 2])
    table = filled(manual_cast.Embedding(3, 4)).to(torch.float16)
    assert table(ids).dtype == torch.float16
    assert torch.equal(table(ids, out_dtype=torch.float32), table.weight[ids].float())
    assert disable_weight_init.Embedding(3, 4)(ids, out_dtype=torch.float64).dtype == torch.float64


def test_nothing_is_initialised() -> None:
    with torch.device("meta"):
        assert disable_weight_init.Linear(2, 3).weight.is_meta
    layer = disable_weight_init.Linear(2, 3)
    layer.weight.data.fill_(7)
    layer.reset_parameters()
    assert bool((layer.weight == 7).all())


def test_functions_change_the_weight_at_use() -> None:
    layer = filled(disable_weight_init.Linear(2, 3))
    x = hashed((1, 2), 4)
    plain = layer(x)
    layer.weight_function = [lambda weight: weight * 2]
    layer.bias_function = [lambda bias: bias * 2]
    assert torch.equal(layer(x), plain * 2)


def test_packs_replace_the_casting_form_on_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(self: Any, input: Tensor) -> Tensor:
        return input * 0

    monkeypatch.setattr(disable_weight_init.GroupNorm, "forward_comfy_cast_weights", other)
    layer = filled(manual_cast.GroupNorm(2, 4))
    assert not layer(torch.ones(1, 4, 3)).any()


def test_casts() -> None:
    layer = filled(disable_weight_init.Linear(2, 3))
    weight, bias = cast_bias_weight(layer, dtype=torch.float16, bias_dtype=torch.float64)
    assert weight is not None
    assert bias is not None
    assert (weight.dtype, bias.dtype) == (torch.float16, torch.float64)
    assert cast_to(weight) is weight
    assert cast_to_input(weight, layer.weight).dtype == torch.float32


@pytest.mark.parametrize(
    ("stored", "computed", "expected"), [("float16", "float16", disable_weight_init), ("float8_e4m3fn", "float16", manual_cast)]
)
def test_pick(stored: str, computed: str, expected: Any) -> None:
    assert pick_operations(getattr(torch, stored), getattr(torch, computed)) is expected


def test_conv_nd() -> None:
    assert isinstance(disable_weight_init.conv_nd(1, 2, 3, 1), disable_weight_init.Conv1d)
    with pytest.raises(ValueError, match="4 axes"):
        disable_weight_init.conv_nd(4, 2, 3, 1)
