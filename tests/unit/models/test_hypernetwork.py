"""Hypernetworks change keys and values by the networks of their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from comfy.errors import WeightFileInvalid
from comfy.models.hypernetwork import read_hypernetwork
from comfy.models.loader import Checkpoint
from tests.fakes import cpu_context
from tests.hashed_weights import hashed

WIDTH = 64


def state(salt: int, names: tuple[str, str] = ("linear.0", "linear.1")) -> dict[str, torch.Tensor]:
    shapes = {f"{names[0]}.weight": (96, WIDTH), f"{names[0]}.bias": (96,), f"{names[1]}.weight": (WIDTH, 96), f"{names[1]}.bias": (WIDTH,)}
    return {name: hashed(shape, salt + i) for i, (name, shape) in enumerate(shapes.items())}


def saved(path: Path, content: Any) -> str:
    torch.save(content, path)
    return str(path)


@pytest.mark.parametrize("names", [("linear.0", "linear.1"), ("linear1", "linear2"), ("linear.0", "linear.2")])
@pytest.mark.parametrize("output", [False, True])
def test_the_networks_formula(tmp_path: Path, names: tuple[str, str], output: bool) -> None:
    content = {WIDTH: (state(1, names), state(9, names)), "activation_func": "relu", "activate_output": output, "step": 3}
    patch = read_hypernetwork(saved(tmp_path / "a.pt", content), 0.5)
    n, context = hashed((1, 5, 32), 20), hashed((1, 5, WIDTH), 21)

    def change(salt: int) -> torch.Tensor:
        first, bias, second, last = state(salt, names).values()
        made = torch.relu(context @ first.T + bias) @ second.T + last
        return torch.relu(made) if output else made

    found = patch(n, context, context, {})
    assert found[0] is n
    torch.testing.assert_close(found[1], context + 0.5 * change(1))
    torch.testing.assert_close(found[2], context + 0.5 * change(9))
    other = hashed((1, 5, 48), 3)
    assert patch(n, other, other, {})[1] is other


def test_layer_norms_between(tmp_path: Path) -> None:
    layers = {"linear.0.weight": torch.eye(WIDTH), "linear.1.weight": torch.full((WIDTH,), 2.0), "linear.1.bias": torch.ones(WIDTH)}
    patch = read_hypernetwork(saved(tmp_path / "a.pt", {WIDTH: (layers, layers)}), 1.0)
    x = hashed((1, 3, WIDTH), 1)
    torch.testing.assert_close(patch(x, x, x, {})[1], x + torch.nn.functional.layer_norm(x, (WIDTH,)) * 2 + 1)


@pytest.mark.parametrize(
    "content",
    [
        {"a": 1},
        {WIDTH: ({}, {})},
        {WIDTH: (state(1), {"linear.0.weight": torch.ones(3, WIDTH)})},
        {WIDTH: (state(1), state(2)), "activation_func": "no such"},
        {WIDTH: (state(1), {"linear.0.weight": torch.ones(2, 2, 2)})},
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: Any) -> None:
    with pytest.raises(WeightFileInvalid) as caught:
        read_hypernetwork(saved(tmp_path / "bad.pt", content), 1.0)
    assert caught.value.facts["file"] == "bad.pt"


def test_a_model_with_a_hypernetwork(tmp_path: Path, checkpoint: Checkpoint) -> None:
    patch = read_hypernetwork(saved(tmp_path / "a.pt", {WIDTH: (state(1), state(9))}), 0.1)
    changed = checkpoint.model.clone()
    changed.set_model_attn2_patch(patch)
    args: dict[str, Any] = {"c_crossattn": hashed((1, 7, WIDTH), 2)}
    with cpu_context().activate():
        x, t = hashed((1, 4, 8, 8), 1), torch.ones(1)
        plain = checkpoint.model.model.apply_model(x, t, **args)
        options = changed.model_options["transformer_options"]
        assert not torch.equal(changed.model.apply_model(x, t, transformer_options=options, **args), plain)
