"""Sound, video, the camera, and empty latents of the families."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from comfy import config, folders
from comfy.errors import ComfyError, InputUnusable, PackageMissing
from comfy.nodes import sound
from comfy.nodes.builtin import register_builtin
from comfy.nodes.registry import NodeRegistry
from comfy.nodes.v3 import audio as encoding
from comfy_extras import nodes_audio, nodes_video
from comfy_extras.nodes_load_3d import Preview3D
from comfy_extras.nodes_wan import TrimVideoLatent
from comfy_extras.nodes_webcam import WebcamCapture


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    folders.configure(config.load(["--base-directory", str(tmp_path)], {}))
    (tmp_path / "input").mkdir(exist_ok=True)
    yield tmp_path
    folders.configure(config.Config())


def tone(seconds: float, rate: int = 8000, channels: int = 1, hertz: float = 200.0) -> dict[str, Any]:
    wave = torch.sin(torch.arange(round(seconds * rate)) / rate * 2 * math.pi * hertz) * 0.8
    return {"waveform": wave.expand(1, channels, -1), "sample_rate": rate}


def seconds(audio: dict[str, Any]) -> float:
    return float(audio["waveform"].shape[-1] / audio["sample_rate"])


@pytest.mark.parametrize("save", ["SaveAudio", "SaveAudioMP3", "SaveAudioOpus"])
def test_a_saved_sound_is_loaded_again(base: Path, save: str) -> None:
    pytest.importorskip("av")
    cls = nodes_audio.NODE_CLASS_MAPPINGS[save]
    shown = getattr(cls(), cls.FUNCTION)(tone(0.5, 48000, 2), "audio/x", {"1": {}}, {})["ui"]["audio"][0]
    (base / "output" / "audio" / shown["filename"]).rename(base / "input" / shown["filename"])
    assert nodes_audio.LoadAudio.INPUT_TYPES()["required"]["audio"][0] == [shown["filename"]]
    assert nodes_audio.LoadAudio.VALIDATE_INPUTS(shown["filename"]) is True
    loaded = nodes_audio.LoadAudio().load(shown["filename"])[0]
    assert loaded["waveform"].shape[:2] == (1, 2)
    assert loaded["sample_rate"] == 48000
    assert seconds(loaded) == pytest.approx(0.5, abs=0.1)
    assert loaded["waveform"].abs().max() == pytest.approx(0.8, abs=0.1)
    if save == "SaveAudio":  # the format without loss, at 16 bits
        assert loaded["waveform"].allclose(tone(0.5, 48000, 2)["waveform"], atol=1e-3)


def test_a_previewed_sound_lies_in_the_temp_folder(base: Path) -> None:
    pytest.importorskip("av")
    shown = nodes_audio.PreviewAudio().preview(tone(0.1))["ui"]["audio"]
    assert shown[0]["type"] == "temp"
    assert (base / "temp" / shown[0]["filename"]).is_file()


@pytest.mark.parametrize("name", ["missing.wav", "../x.wav", "broken.wav"])
def test_what_is_no_sound_is_refused(base: Path, name: str) -> None:
    pytest.importorskip("av")
    (base / "input" / "broken.wav").write_bytes(b"no sound")
    assert (nodes_audio.LoadAudio.VALIDATE_INPUTS(name) is True) is (name == "broken.wav")
    with pytest.raises(ComfyError):
        nodes_audio.LoadAudio().load(name)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    real = builtins.__import__

    def without_av(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "av":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_av)
    with pytest.raises(PackageMissing, match="av"):
        encoding.encode(torch.zeros(1, 10), 8000, "flac")


@pytest.mark.parametrize("rate", [4000, 11025, 16000])
def test_a_resampled_tone_is_the_tone_at_the_new_rate(rate: int) -> None:
    made = sound.resample(tone(0.5)["waveform"], 8000, rate)
    expected = tone(0.5, rate)["waveform"]
    assert abs(made.shape[-1] - expected.shape[-1]) <= 1
    inner = slice(rate // 10, rate * 4 // 10)
    assert made[..., inner].allclose(expected[..., inner], atol=0.02)


def test_sounds_of_different_rates_and_channels_are_joined() -> None:
    made = nodes_audio.AudioConcat().concat(tone(0.5), tone(0.25, 16000, 2), "before")[0]
    assert (made["sample_rate"], made["waveform"].shape[1]) == (16000, 2)
    assert seconds(made) == pytest.approx(0.75, abs=1e-3)


@pytest.mark.parametrize(("method", "peak"), [("add", 1.0), ("mean", 0.8), ("subtract", 0.0), ("multiply", 0.64)])
def test_sounds_are_mixed_as_long_as_the_first(method: str, peak: float) -> None:
    made = nodes_audio.AudioMerge().merge(tone(0.5), tone(0.7), method)[0]
    assert seconds(made) == pytest.approx(0.5)
    assert float(made["waveform"].abs().max()) == pytest.approx(peak, abs=0.01)


@pytest.mark.parametrize(("start", "duration", "expected"), [(0.1, 0.2, 0.2), (-0.1, 5.0, 0.1), (-9.0, 0.3, 0.3), (0.4, 9.0, 0.1)])
def test_a_sound_is_trimmed(start: float, duration: float, expected: float) -> None:
    assert seconds(nodes_audio.TrimAudioDuration().trim(tone(0.5), start, duration)[0]) == pytest.approx(expected)


@pytest.mark.parametrize(
    "call",
    [
        lambda: nodes_audio.TrimAudioDuration().trim(tone(0.5), 3.0, 1.0),
        lambda: nodes_audio.SplitAudioChannels().separate(tone(0.5)),
        lambda: nodes_audio.AudioMerge().merge(tone(0.5), tone(0.5), "wishful"),
        lambda: nodes_audio.AudioMerge().merge({**tone(0.5), "waveform": torch.zeros(3, 1, 9)}, tone(0.5), "add"),
        lambda: nodes_audio.EmptyAudio().create_empty_audio(1.8e19, 44100, 2),
        lambda: nodes_audio.EmptyAudio().create_empty_audio(1.0, 0, 2),
        lambda: encoding.encode(torch.zeros(3, 10), 8000, "flac"),
        lambda: TrimVideoLatent.execute({"samples": torch.zeros(1, 4, 2, 2)}, 1),
    ],
)
def test_what_cannot_be_done_is_said(call: Any) -> None:
    with pytest.raises(InputUnusable):
        call()


def test_channels_volume_and_silence() -> None:
    left, right = nodes_audio.SplitAudioChannels().separate(tone(0.1, channels=2))
    assert left["waveform"].shape == right["waveform"].shape == (1, 1, 800)
    louder = nodes_audio.AudioAdjustVolume().adjust_volume(tone(0.1), -20)[0]
    assert float(louder["waveform"].abs().max()) == pytest.approx(0.08, abs=1e-3)
    assert nodes_audio.EmptyAudio().create_empty_audio(0.5, 100, 2)[0]["waveform"].shape == (1, 2, 50)


FRAMES = torch.linspace(0, 1, 4).reshape(4, 1, 1, 1).expand(4, 32, 48, 3)


def test_a_video_goes_through_a_file(base: Path) -> None:
    pytest.importorskip("av")
    video = nodes_video.CreateVideo.execute(FRAMES, 8.0, tone(0.5)).args[0]
    node = nodes_video.SaveVideo.PREPARE_CLASS_CLONE({"prompt": {"1": {}}})
    shown = node.EXECUTE_NORMALIZED(video=video, filename_prefix="video/v", format="auto", codec="auto").ui.as_dict()
    assert shown["animated"] == (True,)
    assert shown["images"] == [{"filename": "v_00001_.mp4", "subfolder": "video", "type": "output"}]
    (base / "output" / "video" / "v_00001_.mp4").rename(base / "input" / "v.mp4")
    assert nodes_video.LoadVideo.INPUT_TYPES()["required"]["file"][1]["options"] == ["v.mp4"]
    loaded = nodes_video.LoadVideo.execute("v.mp4").args[0]
    images, audio, fps = nodes_video.GetVideoComponents.execute(loaded).args
    assert (images.shape, fps) == (FRAMES.shape, 8.0)
    assert images.allclose(FRAMES, atol=0.05)
    assert audio is not None
    assert nodes_video.LoadVideo.fingerprint_inputs("v.mp4") > 0
    again = node.EXECUTE_NORMALIZED(video=loaded, filename_prefix="again", format="mp4", codec="h264").ui.as_dict()
    assert (base / "output" / again["images"][0]["filename"]).stat().st_size > 0


@pytest.mark.parametrize("codec", ["vp9", "av1"])
def test_pictures_become_webm(base: Path, codec: str) -> None:
    av = pytest.importorskip("av")
    node = nodes_video.SaveWEBM.PREPARE_CLASS_CLONE({"prompt": {"1": {}}})
    inputs = {"images": FRAMES[:, :, :32].expand(4, 32, 32, 3), "filename_prefix": "w", "codec": codec, "fps": 12.5, "crf": 30.0}
    images = torch.cat([inputs["images"]] * 2, dim=2).repeat(1, 2, 1, 1)  # the AV1 encoder wants 64 pixels
    name = node.EXECUTE_NORMALIZED(**{**inputs, "images": images}).ui.as_dict()["images"][0]["filename"]
    with av.open(str(base / "output" / name)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, float(stream.average_rate)) == (64, 64, 12.5)
        assert sum(1 for _ in container.decode(stream)) == 4


@pytest.mark.parametrize(
    "call",
    [
        lambda: nodes_video.LoadVideo.execute("missing.mp4"),
        lambda: nodes_video.LoadVideo.execute("../x.mp4"),
        lambda: nodes_video.LoadVideo.fingerprint_inputs("missing.mp4"),
        lambda: nodes_video.SaveWEBM.execute(FRAMES, "w", "wishful", 1.0, 1.0),
        lambda: nodes_video.SaveVideo.execute(None, "w", "wishful", "auto"),
    ],
)
def test_videos_that_cannot_be_are_refused(base: Path, call: Any) -> None:
    with pytest.raises(ComfyError):
        call()


def test_the_cameras_picture_is_read(base: Path) -> None:
    Image.new("RGB", (5, 4), "red").save(base / "input" / "shot.png")
    assert WebcamCapture().load_capture("shot.png", width=5, height=4, capture_on_queue=True)[0].shape == (1, 4, 5, 3)
    assert len(WebcamCapture.IS_CHANGED("shot.png", 5, 4, True)) == 64


def test_a_model_is_shown_with_its_camera() -> None:
    assert Preview3D().process("m.glb", {"fov": 3}) == {"ui": {"result": ["m.glb", {"fov": 3}]}}


@pytest.mark.parametrize(
    ("name", "inputs", "shapes"),
    [
        ("EmptyLatentImage", {"width": 520, "height": 512}, [(2, 4, 64, 65)]),
        ("EmptySD3LatentImage", {"width": 64, "height": 32}, [(2, 16, 4, 8)]),
        ("EmptyHunyuanLatentVideo", {"width": 64, "height": 32, "length": 25}, [(2, 16, 7, 4, 8)]),
        ("EmptyMochiLatentVideo", {"width": 64, "height": 32, "length": 25}, [(2, 12, 5, 4, 8)]),
        ("EmptyLTXVLatentVideo", {"width": 64, "height": 32, "length": 97}, [(2, 128, 13, 1, 2)]),
        ("EmptyCosmosLatentVideo", {"width": 64, "height": 32, "length": 121}, [(2, 16, 16, 4, 8)]),
        ("EmptyHunyuanImageLatent", {"width": 64, "height": 96}, [(2, 64, 3, 2)]),
        ("EmptyChromaRadianceLatentImage", {"width": 32, "height": 16}, [(2, 3, 16, 32)]),
        ("StableCascade_EmptyLatentImage", {"width": 1024, "height": 512, "compression": 42}, [(2, 16, 12, 24), (2, 4, 128, 256)]),
    ],
)
def test_empty_latents_have_their_familys_shape(name: str, inputs: dict[str, int], shapes: list[tuple[int, ...]]) -> None:
    registry = NodeRegistry()
    register_builtin(registry)
    cls = registry.classes[name]
    made = getattr(cls if hasattr(cls, "define_schema") else cls(), cls.FUNCTION)(**inputs, batch_size=2)
    assert [tuple(one["samples"].shape) for one in getattr(made, "args", made)] == shapes
    assert all(one["samples"].eq(0).all() for one in getattr(made, "args", made))


def test_the_first_frames_are_trimmed() -> None:
    made = TrimVideoLatent.execute({"samples": torch.arange(5.0).reshape(1, 1, 5, 1, 1)}, 2).args[0]
    assert made["samples"].flatten().tolist() == [2, 3, 4]
