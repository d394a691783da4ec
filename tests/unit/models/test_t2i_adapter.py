"""T2I adapters: both kinds of files, their features by torch's functions, and where the UNet takes them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from comfy.errors import ModelUnknown, WeightFileInvalid
from comfy.models.control import load_controlnet
from comfy.models.t2i_adapter import T2IAdapter
from tests.data.networks import cases
from tests.fakes import cpu_context

#: of each level of the UNet "unet_sd1"
WIDTHS = (32, 64, 64)


def weights(light: bool, channels: int = 3) -> dict[str, Tensor]:
    seeds, made = torch.Generator().manual_seed(6), {}

    def conv(name: str, inside: int, out: int, side: int) -> None:
        made[f"{name}.weight"] = torch.randn(out, inside, side, side, generator=seeds) * (1.0 / (inside * side * side) ** 0.5)
        made[f"{name}.bias"] = torch.randn(out, generator=seeds) * 0.1

    before = channels * 64
    if not light:
        conv("conv_in", before, WIDTHS[0], 3)
        before = WIDTHS[0]
    for level, width in enumerate(WIDTHS):
        if light:
            conv(f"body.{level}.in_conv", before, 8, 1)
            for block in range(2):
                conv(f"body.{level}.body.{block}.block1", 8, 8, 3)
                conv(f"body.{level}.body.{block}.block2", 8, 8, 3)
            conv(f"body.{level}.out_conv", 8, width, 1)
        else:
            for block in (2 * level, 2 * level + 1):
                if before != width:
                    conv(f"body.{block}.in_conv", before, width, 1)
                conv(f"body.{block}.block1", width, width, 3)
                conv(f"body.{block}.block2", width, width, 1)
                before = width
        before = width
    return made


def reference(given: dict[str, Tensor], light: bool, hint: Tensor) -> list[Tensor]:
    def conv(name: str, x: Tensor) -> Tensor:
        weight = given[f"{name}.weight"]
        return F.conv2d(x, weight, given[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def residual(name: str, x: Tensor) -> Tensor:
        return conv(f"{name}.block2", conv(f"{name}.block1", x).relu()) + x

    x, found = F.pixel_unshuffle(hint, 8), []
    if not light:
        x = conv("conv_in", x)
    for level in range(3):
        if level:
            x = x.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(-1, -2))
        if light:
            x = conv(f"body.{level}.in_conv", x)
            x = residual(f"body.{level}.body.1", residual(f"body.{level}.body.0", x))
            x = conv(f"body.{level}.out_conv", x)
        else:
            for block in (2 * level, 2 * level + 1):
                x = residual(f"body.{block}", conv(f"body.{block}.in_conv", x) if f"body.{block}.in_conv.weight" in given else x)
        found.append(x)
    return found


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("light", [True, False])
def test_features_are_added_at_the_end_of_each_level(light: bool, channels: int, tmp_path: Path) -> None:
    given, hint = weights(light, channels), torch.rand(1, 3, 64, 32)
    save_file(given, tmp_path / "adapter.safetensors")
    loaded: Any = pickle.loads(pickle.dumps(load_controlnet(tmp_path / "adapter.safetensors")))
    assert isinstance(loaded, T2IAdapter)
    adapter = loaded.copy().set_cond_hint(hint, 0.5)
    unet, inputs = cases.build("unet_sd1"), cases.unet_inputs("unet_sd1")
    inputs["x"] = torch.randn(2, 4, 8, 4)
    with cpu_context().activate():
        control = adapter.get_control(inputs["x"], torch.ones(2), {}, 2)
        again = adapter.get_control(inputs["x"], torch.ones(2), {}, 2)
        adapter.cleanup()
    expected = reference(given, light, hint.mean(1, keepdim=True) if channels == 1 else hint)
    assert len(control["input"]) == 9
    for level, feature in enumerate(expected):
        mine = control["input"][::-1][3 * level + 2]
        assert torch.allclose(mine, feature.repeat(2, 1, 1, 1) * 0.5, atol=1e-5)
        assert torch.equal(mine, again["input"][::-1][3 * level + 2])

    def outputs(control: Any) -> list[Tensor]:
        seen: list[Tensor] = []

        def look(h: Tensor, options: Any) -> Tensor:
            seen.append(h)
            return h

        unet(**inputs, control=control, transformer_options={"patches": {"input_block_patch": [look]}})
        return seen

    with torch.no_grad():
        steered, plain = outputs(control), outputs(None)
    assert [torch.equal(a, b) for a, b in zip(steered[:3], plain[:3])] == [True, True, False]
    assert torch.allclose(steered[2] - plain[2], control["input"][-3], atol=1e-5)


@pytest.mark.parametrize("spoil", ["family", "shape", "blocks"])
def test_other_adapters_are_refused(spoil: str, tmp_path: Path) -> None:
    given = weights(light=False)
    if spoil == "family":
        given["conv_in.weight"] = torch.zeros(32, 768, 3, 3)
    elif spoil == "shape":
        given["body.3.block1.bias"] = torch.zeros(3)
    else:
        given = {name: tensor for name, tensor in given.items() if not name.startswith("body.5.")}
    save_file(given, tmp_path / "adapter.safetensors")
    with pytest.raises(WeightFileInvalid if spoil == "shape" else ModelUnknown):
        load_controlnet(tmp_path / "adapter.safetensors")
