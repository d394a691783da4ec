"""The small autoencoder: its files' names, its numbers against plain convolutions, and the previews that it makes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

import latent_preview
from comfy import config, control, folders, latent_formats
from comfy.config import LatentPreviewMethod
from comfy.errors import ComfyError
from comfy.models import tiny
from comfy.models.loader import load_checkpoint
from comfy.models.previews import get_previewer
from comfy.nodes.loaders import VAELoader
from comfy.nodes.sampling import KSampler
from comfy.sampling import preview
from comfy.taesd.taesd import TAESD
from tests import goldens
from tests.fakes import ManualClock, cpu_context
from tests.make_checkpoint import make_sd1_checkpoint

CPU = torch.device("cpu")
RECORDED = goldens.tensors("f_latent_formats")


def tensors(half: str, z: int = 4, ch: int = 64) -> dict[str, Tensor]:
    """Weights with the names of the published files, which number the layers of one sequence."""
    made: dict[str, Tensor] = {}
    seeds = torch.Generator().manual_seed(len(half))

    def conv(name: str, out: int, inside: int, bias: bool = True) -> None:
        made[f"{name}.weight"] = torch.randn(out, inside, 3, 3, generator=seeds) * (0.7 / (inside * 9) ** 0.5)
        if bias:
            made[f"{name}.bias"] = torch.randn(out, generator=seeds) * 0.05

    first, last, blocks, plain = (
        (1, 19, (3, 4, 5, 8, 9, 10, 13, 14, 15, 18), (7, 12, 17))
        if half == "decoder"
        else (0, 14, (1, 3, 4, 5, 7, 8, 9, 11, 12, 13), (2, 6, 10))
    )
    conv(str(first), ch, z if half == "decoder" else 3)
    for number in blocks:
        for layer in (0, 2, 4):
            conv(f"{number}.conv.{layer}", ch, ch)
    for number in plain:
        conv(str(number), ch, ch, bias=False)
    conv(str(last), 3 if half == "decoder" else z, ch)
    return made


def reference(half: str, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network by torch's functions, layer number by layer number."""

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        return F.conv2d(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"), padding=1, stride=stride)

    def block(number: int, x: Tensor) -> Tensor:
        h = conv(f"{number}.conv.0", x).relu()
        h = conv(f"{number}.conv.2", h).relu()
        return (conv(f"{number}.conv.4", h) + x).relu()

    if half == "decoder":
        x = conv("1", torch.tanh(x / 3) * 3).relu()
        for start in (3, 8, 13):
            x = block(start + 2, block(start + 1, block(start, x)))
            x = conv(str(start + 4), x.repeat_interleave(2, -1).repeat_interleave(2, -2))
        return conv("19", block(18, x))
    x = block(1, conv("0", x))
    for start in (2, 6, 10):
        x = conv(str(start), x, stride=2)
        x = block(start + 3, block(start + 2, block(start + 1, x)))
    return conv("14", x)


@pytest.fixture
def approx(tmp_path: Path) -> Iterator[Path]:
    folders.configure(config.load(["--base-directory", str(tmp_path)], {}))
    folder = tmp_path / "models" / "vae_approx"
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    folders.configure(config.Config())


@pytest.fixture
def method(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda wanted: monkeypatch.setattr(preview, "_method", lambda: wanted)


@pytest.mark.parametrize(("name", "z", "scale", "shift"), [("taesd", 4, 0.18215, 0.0), ("taef1", 16, 0.3611, 0.1159)])
def test_two_files_are_a_vae(approx: Path, name: str, z: int, scale: float, shift: float) -> None:
    halves = {half: tensors(half, z, 32) for half in ("encoder", "decoder")}
    save_file(halves["decoder"], approx / f"{name}_decoder.safetensors")
    assert tiny.tiny_vae_names() == []
    save_file(halves["encoder"], approx / f"{name}_encoder.safetensors")
    assert VAELoader.INPUT_TYPES()["required"]["vae_name"] == ([name, "pixel_space"],)
    vae, latent, pixels = VAELoader().load_vae(name)[0], torch.randn(2, z, 3, 2), torch.rand(1, 17, 24, 3)
    with cpu_context().activate():
        decoded, encoded, tiled = vae.decode(latent), vae.encode(pixels), vae.decode_tiled(latent)
        assert vae.get_sd().keys() == {f"taesd_{half}.{key}" for half, given in halves.items() for key in given}
    expected = reference("decoder", halves["decoder"], (latent - shift) * scale).clamp(0, 1).movedim(1, -1)
    assert torch.allclose(decoded, expected, atol=1e-5)
    assert torch.allclose(tiled, expected, atol=1e-5)  # one tile covers it
    made = reference("encoder", halves["encoder"], pixels[:, :16].movedim(-1, 1)) / scale + shift
    assert torch.allclose(encoded, made, atol=1e-4)


def test_names_that_are_no_vae_are_refused(approx: Path) -> None:
    with pytest.raises(ComfyError):
        tiny.load_tiny_vae("taesd")
    save_file(tensors("decoder"), approx / "taesd_encoder.safetensors")  # the wrong half
    save_file(tensors("decoder"), approx / "taesd_decoder.safetensors")
    with pytest.raises(ComfyError):
        tiny.load_tiny_vae("taesd")


def test_packs_make_the_autoencoder_from_paths(tmp_path: Path) -> None:
    paths = {half: tmp_path / f"{half}.safetensors" for half in ("encoder", "decoder")}
    for half, path in paths.items():
        save_file(tensors(half), path)
    made = TAESD(paths["encoder"], paths["decoder"])
    latent, pixels = torch.randn(1, 4, 2, 2), torch.rand(1, 3, 16, 16)
    assert torch.allclose(made.decode(latent), reference("decoder", tensors("decoder"), latent) * 2 - 1, atol=1e-5)
    assert torch.allclose(made.encode(pixels * 2 - 1), reference("encoder", tensors("encoder"), pixels), atol=1e-5)


def test_a_preview_is_the_decoders_picture_of_the_first_item(approx: Path, method: Any) -> None:
    weights = tensors("decoder", ch=32)
    save_file(weights, approx / "taesd_decoder.safetensors")
    method(LatentPreviewMethod.TAESD)
    x0 = torch.randn(2, 4, 3, 5)
    with cpu_context().activate():
        found = get_previewer(CPU, latent_formats.SD15())
        assert isinstance(found, latent_preview.TAESDPreviewerImpl)
        kind, picture, longest = found.decode_latent_to_preview_image("JPEG", x0)
    expected = (reference("decoder", weights, x0[:1])[0].movedim(0, -1).clamp(0, 1) * 255).to(torch.uint8)
    assert (kind, picture.size, longest) == ("JPEG", (40, 24), 512)
    assert int(np.abs(np.asarray(picture).astype(int) - expected.numpy()).max()) <= 1


def test_the_linear_preview_stands_in(approx: Path, method: Any) -> None:
    method(LatentPreviewMethod.TAESD)
    linear = latent_preview.Latent2RGBPreviewer
    with cpu_context().activate():
        assert isinstance(get_previewer(CPU, latent_formats.SD15()), linear)  # no file
        (approx / "taesd_decoder.safetensors").write_bytes(b"broken")
        assert isinstance(get_previewer(CPU, latent_formats.SD15()), linear)
        save_file(tensors("decoder", z=16, ch=32), approx / "taesdxl_decoder.safetensors")
        assert isinstance(get_previewer(CPU, latent_formats.SDXL()), linear)  # of another family
    save_file(tensors("decoder", ch=32), approx / "taesd_decoder.safetensors")
    assert isinstance(get_previewer(CPU, latent_formats.SD15()), linear)  # outside any lane
    method(LatentPreviewMethod.NoPreviews)
    with cpu_context().activate():
        assert get_previewer(CPU, latent_formats.SD15()) is None


@pytest.mark.parametrize("name", [name for name in goldens.facts("f_latent_formats") if f"{name}/preview_rgb" in RECORDED])
def test_linear_previews_are_the_recorded_ones(name: str) -> None:
    """Within one level of 255 (goldens README, section F)."""
    found = preview.latent2rgb(getattr(latent_formats, name)())
    assert found is not None
    picture = np.asarray(found.decode_latent_to_preview(RECORDED[f"{name}/preview_in"])).astype(int)
    expected = RECORDED[f"{name}/preview_rgb"].numpy().astype(int)
    assert picture.shape == expected.shape
    assert int(np.abs(picture - expected).max()) <= 1


def test_the_size_of_previews_is_the_flags(tmp_path: Path) -> None:
    folders.configure(config.load(["--base-directory", str(tmp_path), "--preview-size", "96"], {}))
    try:
        found = preview.latent2rgb(latent_formats.SD15())
        assert found is not None
        assert found.decode_latent_to_preview_image("JPEG", torch.zeros(1, 4, 2, 2))[2] == 96
    finally:
        folders.configure(config.Config())


def test_steps_are_shown_first_last_and_once_in_an_interval() -> None:
    clock = ManualClock()
    shown, previews = [], preview.PreviewClock(clock)
    for step in range(10):
        if previews.due(step == 9):
            shown.append(step)
        clock.advance(preview.INTERVAL_S * 0.4)
    assert shown == [0, 3, 6, 9]
    assert [preview.PreviewClock(clock).due(False) for _ in range(2)] == [True, True]  # each run has its own


def sampled(path: Path, seen: list[Any]) -> Tensor:
    """Three steps on a lane whose job keeps what it is told."""
    model, clip, _ = load_checkpoint(path, embedding_folders=())
    assert clip is not None
    job = control.JobControl("p", progress=lambda value, maximum, picture, node: seen.append((value, picture)))
    with cpu_context().activate(), control.entered(job):
        text = clip.encode_from_tokens_scheduled(clip.tokenize("a cat"))
        empty = {"samples": torch.zeros(1, 4, 8, 8)}
        return KSampler().sample(model, 3, 3, 4.0, "dpmpp_2m_sde", "normal", text, text, empty, 1.0)[0]["samples"]


def test_previews_never_change_the_picture(approx: Path, method: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_sd1_checkpoint(tmp_path / "small.safetensors")
    save_file(tensors("decoder", ch=32), approx / "taesd_decoder.safetensors")
    made: dict[LatentPreviewMethod, Tensor] = {}
    seen: list[Any] = []
    for wanted in (LatentPreviewMethod.NoPreviews, LatentPreviewMethod.Latent2RGB, LatentPreviewMethod.TAESD):
        method(wanted)
        seen.clear()
        made[wanted] = sampled(path, seen)
        sizes = {picture[1].size for _, picture in seen if picture is not None}
        assert [value for value, _ in seen] == [1, 2, 3]
        assert sizes == {"none": set(), "latent2rgb": {(8, 8)}, "taesd": {(64, 64)}}[wanted.value]
    plain = made.pop(LatentPreviewMethod.NoPreviews)
    assert all(torch.equal(other, plain) for other in made.values())

    class Broken(preview.LatentPreviewer):
        def decode_latent_to_preview(self, x0: Tensor) -> Any:
            raise RuntimeError("no picture")

    monkeypatch.setattr(latent_preview, "get_previewer", lambda *args: Broken())
    seen.clear()
    assert torch.equal(sampled(path, seen), plain)  # a preview that fails costs the previews alone
    assert seen == [(1, None), (2, None), (3, None)]
