"""Networks that enlarge pictures: the layouts of their files, and their numbers against torch's functions."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from comfy import config, control, folders
from comfy.errors import ComfyError, InputUnusable, Interrupted, ModelUnknown, WeightFileInvalid
from comfy.models.upscale import load_upscale_model
from comfy_extras.nodes_upscale_model import ImageUpscaleWithModel, UpscaleModelLoader
from tests.fakes import cpu_context


def weights(doublings: int = 2, unshuffle: int = 1, features: int = 8, growth: int = 4, blocks: int = 2) -> dict[str, Tensor]:
    """A small RRDB network under Real-ESRGAN's names."""
    seeds, made = torch.Generator().manual_seed(5), {}

    def conv(name: str, inside: int, out: int) -> None:
        made[f"{name}.weight"] = torch.randn(out, inside, 3, 3, generator=seeds) * (1.5 / (inside * 9) ** 0.5)
        made[f"{name}.bias"] = torch.randn(out, generator=seeds) * 0.1

    conv("conv_first", 3 * unshuffle**2, features)
    for block in range(blocks):
        for dense in (1, 2, 3):
            for layer in range(5):
                conv(f"body.{block}.rdb{dense}.conv{layer + 1}", features + layer * growth, features if layer == 4 else growth)
    for name in ("conv_body", *(f"conv_up{i + 1}" for i in range(doublings)), "conv_hr"):
        conv(name, features, features)
    conv("conv_last", features, 3)
    return made


def reference(given: dict[str, Tensor], x: Tensor, doublings: int = 2, unshuffle: int = 1) -> Tensor:
    def conv(name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, given[f"{name}.weight"], given[f"{name}.bias"], padding=1)

    def leaky(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 0.2 * x)

    if unshuffle > 1:
        x = F.pixel_unshuffle(x, unshuffle)
    first = h = conv("conv_first", x)
    for block in range(2):
        outer = h
        for dense in (1, 2, 3):
            name, seen = f"body.{block}.rdb{dense}.conv", [h]
            for layer in (1, 2, 3, 4):
                seen.append(leaky(conv(f"{name}{layer}", torch.cat(seen, 1))))
            h = h + 0.2 * conv(f"{name}5", torch.cat(seen, 1))
        h = outer + 0.2 * h
    h = first + conv("conv_body", h)
    for i in range(doublings):
        h = leaky(conv(f"conv_up{i + 1}", h.repeat_interleave(2, -1).repeat_interleave(2, -2)))
    return conv("conv_last", leaky(conv("conv_hr", h)))


def old_names(given: dict[str, Tensor], doublings: int = 2) -> dict[str, Tensor]:
    """The same under the names of ESRGAN's first files."""
    places = {"conv_first": "model.0", "conv_body": "model.1.sub.2", "conv_hr": f"model.{2 + 3 * doublings}"}
    places |= {f"conv_up{i + 1}": f"model.{3 + 3 * i}" for i in range(doublings)} | {"conv_last": f"model.{4 + 3 * doublings}"}
    renamed = {}
    for name, tensor in given.items():
        layer, _, kind = name.rpartition(".")
        if layer.startswith("body."):
            _, block, dense, conv = layer.split(".")
            renamed[f"model.1.sub.{block}.RDB{dense[3:]}.{conv}.0.{kind}"] = tensor
        else:
            renamed[f"{places[layer]}.{kind}"] = tensor
    return renamed


def trunk_names(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same under the names of ESRGAN's published code."""
    names = {"conv_body": "trunk_conv", "conv_up1": "upconv1", "conv_up2": "upconv2", "conv_hr": "HRconv"}
    renamed = {}
    for name, tensor in given.items():
        layer, _, kind = name.rpartition(".")
        layer = names.get(layer, layer.replace("body.", "RRDB_trunk.").replace("rdb", "RDB"))
        renamed[f"{layer}.{kind}"] = tensor
    return renamed


@pytest.mark.parametrize("layout", [dict, old_names, trunk_names, lambda w: {f"module.{name}": tensor for name, tensor in w.items()}])
def test_every_layout_is_the_same_network(layout: Any, tmp_path: Path) -> None:
    given, x = weights(), torch.rand(1, 3, 5, 7)
    save_file(layout(given), tmp_path / "x4.safetensors")
    model = load_upscale_model(tmp_path / "x4.safetensors")
    assert (model.scale, model.input_channels) == (4, 3)
    with cpu_context().activate():
        assert torch.allclose(model(x), reference(given, x), atol=1e-5)
        assert torch.equal(pickle.loads(pickle.dumps(model)).to("cuda").eval()(x), model(x))


@pytest.mark.parametrize(("doublings", "unshuffle", "scale"), [(1, 1, 2), (0, 1, 1), (3, 1, 8), (2, 2, 2), (2, 4, 1)])
def test_scales(doublings: int, unshuffle: int, scale: int, tmp_path: Path) -> None:
    given, x = weights(doublings, unshuffle), torch.rand(1, 3, 8, 4)
    save_file(given if unshuffle > 1 else old_names(given, doublings), tmp_path / "m.safetensors")
    model = load_upscale_model(tmp_path / "m.safetensors")
    assert model.scale == scale
    with cpu_context().activate():
        assert torch.allclose(model(x), reference(given, x, doublings, unshuffle), atol=1e-5)
        assert model(x[..., :7, :3]).shape == (1, 3, 7 * scale, 3 * scale)


def test_compact_networks_in_a_pickle_beside_others(tmp_path: Path) -> None:
    seeds = torch.Generator().manual_seed(2)
    given: dict[str, Tensor] = {}
    for layer, (inside, out) in enumerate([(3, 6), (6, 6), (6, 6), (6, 27)]):
        given[f"body.{2 * layer}.weight"] = torch.randn(out, inside, 3, 3, generator=seeds) * 0.2
        given[f"body.{2 * layer}.bias"] = torch.randn(out, generator=seeds) * 0.1
        if layer < 3:
            given[f"body.{2 * layer + 1}.weight"] = torch.rand(out, generator=seeds)
    torch.save({"params": {name: tensor + 1 for name, tensor in given.items()}, "params_ema": given}, tmp_path / "c.pth")
    model, x = load_upscale_model(tmp_path / "c.pth"), torch.rand(1, 3, 4, 5)
    assert model.scale == 3
    h = x
    for layer in range(4):
        h = F.conv2d(h, given[f"body.{2 * layer}.weight"], given[f"body.{2 * layer}.bias"], padding=1)
        if layer < 3:
            slope = given[f"body.{2 * layer + 1}.weight"].reshape(1, -1, 1, 1)
            h = torch.where(h > 0, h, slope * h)
    expected = F.pixel_shuffle(h, 3) + x.repeat_interleave(3, -1).repeat_interleave(3, -2)
    with cpu_context().activate():
        assert torch.allclose(model(x), expected, atol=1e-5)


@pytest.mark.parametrize("spoil", ["other", "missing", "shape", "channels"])
def test_other_files_are_refused(spoil: str, tmp_path: Path) -> None:
    given = weights()
    if spoil == "other":
        given = {"layers.0.weight": torch.zeros(3, 3)}
    elif spoil == "missing":
        del given["body.1.rdb2.conv3.bias"]
    elif spoil == "shape":
        given["conv_hr.weight"] = torch.zeros(8, 8, 1, 1)
    else:
        given["conv_first.weight"] = torch.zeros(8, 5, 3, 3)
    save_file(given, tmp_path / "m.safetensors")
    with pytest.raises(ModelUnknown if spoil == "other" else WeightFileInvalid):
        load_upscale_model(tmp_path / "m.safetensors")


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    folders.configure(config.load(["--base-directory", str(tmp_path)], {}))
    (tmp_path / "models" / "upscale_models").mkdir(parents=True, exist_ok=True)
    yield tmp_path
    folders.configure(config.Config())


def test_a_picture_is_enlarged_in_tiles(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = weights()
    save_file(given, base / "models" / "upscale_models" / "x4.safetensors")
    schema = UpscaleModelLoader.INPUT_TYPES()["required"]["model_name"]
    assert schema[1]["options"] == ["x4.safetensors"]
    model = UpscaleModelLoader.EXECUTE_NORMALIZED(model_name="x4.safetensors").args[0]
    image, told = torch.rand(2, 9, 6, 4), []
    job = control.JobControl("p", progress=lambda *args: told.append(args[:2]))
    with cpu_context().activate(), control.entered(job):
        made = ImageUpscaleWithModel.EXECUTE_NORMALIZED(upscale_model=model, image=image).args[0]
        expected = reference(given, image[..., :3].movedim(-1, 1)).movedim(1, -1).clamp(0, 1)
        assert torch.allclose(made, expected, atol=1e-5)
        assert told == [(1, 2), (2, 2)]
        monkeypatch.setattr(type(model), "tile", lambda self: 48)
        wide = torch.rand(1, 40, 100, 3)
        tiled = ImageUpscaleWithModel.EXECUTE_NORMALIZED(upscale_model=model, image=wide).args[0]
        assert tiled.shape == (1, 160, 400, 3)
        whole = reference(given, wide.movedim(-1, 1)).movedim(1, -1).clamp(0, 1)
        assert torch.allclose(tiled[:, :, : 4 * 8], whole[:, :, : 4 * 8], atol=1e-4)  # only the first tile reaches here
        job.stop.set()
        with pytest.raises(Interrupted):
            ImageUpscaleWithModel.EXECUTE_NORMALIZED(upscale_model=model, image=wide)


def test_what_does_not_fit_is_refused(base: Path) -> None:
    with pytest.raises(ComfyError):
        UpscaleModelLoader.EXECUTE_NORMALIZED(model_name="missing.pth")
    save_file(weights(), base / "models" / "upscale_models" / "x4.safetensors")
    model = UpscaleModelLoader.EXECUTE_NORMALIZED(model_name="x4.safetensors").args[0]
    with cpu_context().activate(), pytest.raises(InputUnusable):
        ImageUpscaleWithModel.EXECUTE_NORMALIZED(upscale_model=model, image=torch.rand(1, 4, 4, 1))


def test_tiles_shrink_with_the_budget_alone(base: Path) -> None:
    save_file(weights(features=64, growth=32), base / "models" / "upscale_models" / "x4.safetensors")
    model = UpscaleModelLoader.EXECUTE_NORMALIZED(model_name="x4.safetensors").args[0]
    sides = []
    for gib in (80, 4, 1):
        lane = cpu_context(budget_bytes=gib * 2**30)
        lane.device = torch.device("cuda", 0)  # only asked, never used
        token = lane_token(lane)
        sides.append(model.tile())
        token()
    assert sides == [512, 256, 128]


def lane_token(lane: Any) -> Any:
    """Make `lane` the current one without CUDA; returns what undoes it."""
    from comfy.device import context

    token = context._current.set(lane)
    return lambda: context._current.reset(token)
