"""Progress through `ComfyAPI`, and what nodes show: `ui` helpers and their files (custom-nodes.md 4.5, 4.6)."""

from __future__ import annotations

import asyncio
import io as stdio
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from comfy import config, control, folders
from comfy.errors import InputUnusable, Interrupted
from comfy.nodes.v3.values import SVG
from comfy_api.feature_flags import get_connection_feature, get_server_features, supports_feature
from comfy_api.input_impl import VideoFromComponents, VideoFromFile
from comfy_api.latest import ComfyAPI, ComfyAPISync, io, ui
from comfy_api.util import VideoCodec, VideoComponents, VideoContainer
from comfy_execution.graph import DynamicPrompt
from comfy_execution.progress import job_progress
from comfy_execution.utils import CurrentNodeContext


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Path]:
    """The output folder of a server whose folders lie in tmp_path."""
    folders.configure(config.load(["--base-directory", str(tmp_path)], {}))
    yield tmp_path
    folders.configure(config.Config())


class Node(io.ComfyNode):
    """A node that only lends its hidden values."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="Node", is_output_node=True)


def prepared() -> Any:
    return Node.PREPARE_CLASS_CLONE({"prompt": {"1": {"class_type": "Node"}}, "extra_pnginfo": {"workflow": {"nodes": []}}})


PICTURES = torch.linspace(0, 1, 2 * 4 * 6 * 3).reshape(2, 4, 6, 3)


def test_progress_is_reported_for_the_running_node() -> None:
    with job_progress("p", DynamicPrompt({"3": {"class_type": "X", "inputs": {}}})) as registry:
        with CurrentNodeContext("p", "3"):
            asyncio.run(ComfyAPI().execution.set_progress(2, 5))
            assert (registry.nodes["3"]["value"], registry.nodes["3"]["max"]) == (2, 5)
            ComfyAPISync().execution.set_progress(4, 5, preview_image=PICTURES)
            assert registry.nodes["3"]["value"] == 4
        with pytest.raises(ValueError):
            ComfyAPISync().execution.set_progress(1, 2)


def test_a_stopped_job_notices_when_it_reports() -> None:
    job = control.JobControl("p")
    job.stop.set()
    with control.entered(job), CurrentNodeContext("p", "3"), pytest.raises(Interrupted):
        ComfyAPISync().execution.set_progress(1, 2)


def test_the_api_objects_are_singletons() -> None:
    assert ComfyAPI() is ComfyAPI()
    assert ComfyAPISync() is ComfyAPISync()


def test_saved_pictures_carry_prompt_and_workflow(output: Path) -> None:
    shown = ui.ImageSaveHelper.get_save_images_ui(PICTURES, "t/x", prepared()).as_dict()
    assert shown == {
        "images": [
            {"filename": "x_00001_.png", "subfolder": "t", "type": "output"},
            {"filename": "x_00002_.png", "subfolder": "t", "type": "output"},
        ]
    }
    with Image.open(output / "output" / "t" / "x_00001_.png") as picture:
        assert picture.size == (6, 4)
        assert json.loads(picture.text["workflow"]) == {"nodes": []}  # type: ignore[attr-defined]
        assert json.loads(picture.text["prompt"]) == {"1": {"class_type": "Node"}}  # type: ignore[attr-defined]


def test_previews_lie_in_the_temp_folder(output: Path) -> None:
    shown = ui.PreviewImage(PICTURES, cls=prepared()).as_dict()
    assert shown["animated"] == (False,)
    assert [one["type"] for one in shown["images"]] == ["temp", "temp"]
    assert (output / "temp" / shown["images"][0]["filename"]).is_file()
    assert len(ui.PreviewMask(PICTURES[..., 0], cls=None).as_dict()["images"]) == 2


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_animations_are_one_file(output: Path, kind: str) -> None:
    if kind == "png":
        shown = ui.ImageSaveHelper.get_save_animated_png_ui(PICTURES, "a", prepared(), 5.0, 1).as_dict()
    else:
        shown = ui.ImageSaveHelper.get_save_animated_webp_ui(PICTURES, "a", prepared(), 5.0, True, 80, 0).as_dict()
    assert shown["animated"] == (True,)
    with Image.open(output / "output" / f"a_00001_.{kind}") as picture:
        assert picture.n_frames == 2  # type: ignore[attr-defined]
        assert len(shown["images"]) == 1


def test_other_things_that_nodes_show() -> None:
    assert ui.PreviewText("x").as_dict() == {"text": ("x",)}
    assert ui.PreviewUI3D("m.glb", {"fov": 1}).as_dict() == {"result": ["m.glb", {"fov": 1}]}
    assert ui.PreviewVideo([1]).as_dict() == {"images": [1], "animated": (True,)}
    saved = ui.SavedResult("f", "s", io.FolderType.temp)
    assert (dict(saved), saved.type) == ({"filename": "f", "subfolder": "s", "type": "temp"}, io.FolderType.temp)


def test_client_features() -> None:
    sockets = {"a": {"feature_flags": {"x": True, "y": 3}}}
    assert supports_feature(sockets, "a", "x")
    assert not supports_feature(sockets, "b", "x")
    assert get_connection_feature(sockets, "a", "y") == 3
    assert get_server_features()["supports_preview_metadata"] is True


def test_drawings_combine() -> None:
    one, two = SVG([stdio.BytesIO(b"1")]), SVG([stdio.BytesIO(b"2")])
    assert [buffer.getvalue() for buffer in SVG.combine_all([one.combine(two), two]).data] == [b"1", b"2", b"2"]


def test_a_video_is_saved_and_read_back() -> None:
    pytest.importorskip("av")
    frames = torch.zeros(6, 32, 32, 3)
    frames[3:] = 1.0
    sound = {"waveform": torch.sin(torch.arange(8000) / 10)[None, None], "sample_rate": 16000}
    made = VideoFromComponents(VideoComponents(frames, Fraction(12), sound))  # type: ignore[arg-type]
    buffer = stdio.BytesIO()
    made.save_to(buffer, VideoContainer.MP4, VideoCodec.H264, {"prompt": {"1": {}}})
    video = VideoFromFile(buffer)
    assert video.get_dimensions() == (32, 32)
    assert video.get_duration() == pytest.approx(0.5, abs=0.1)
    parts = video.get_components()
    assert (parts.images.shape, parts.frame_rate) == ((6, 32, 32, 3), 12)
    assert parts.images[0].max() < 0.1
    assert parts.images[5].min() > 0.9
    assert parts.audio is not None
    assert parts.audio["sample_rate"] == 16000
    again = stdio.BytesIO()
    video.save_to(again)
    assert VideoFromFile(again).get_components().images.equal(parts.images)


def test_what_is_no_video_is_refused() -> None:
    pytest.importorskip("av")
    with pytest.raises(InputUnusable):
        VideoFromFile(stdio.BytesIO(b"no video at all")).get_components()
    odd = VideoFromComponents(VideoComponents(torch.zeros(1, 5, 5, 3), Fraction(1)))
    with pytest.raises(InputUnusable):
        odd.save_to(stdio.BytesIO())


@pytest.mark.parametrize(("kind", "quality"), [("flac", "128k"), ("mp3", "V0"), ("mp3", "320k"), ("opus", "64k")])
def test_sounds_are_saved_with_their_metadata(output: Path, kind: str, quality: str) -> None:
    av = pytest.importorskip("av")
    audio = {"waveform": torch.sin(torch.arange(2 * 4410).reshape(1, 2, 4410) / 20), "sample_rate": 44100}
    shown = ui.AudioSaveHelper.get_save_audio_ui(audio, "audio/x", prepared(), kind, quality).as_dict()
    assert shown == {"audio": [{"filename": f"x_00001_.{kind}", "subfolder": "audio", "type": "output"}]}
    with av.open(str(output / "output" / "audio" / f"x_00001_.{kind}")) as container:
        stream = container.streams.audio[0]
        assert stream.channels == 2
        assert stream.rate == (48000 if kind == "opus" else 44100)
        tags = {**container.metadata, **stream.metadata}
    assert json.loads({key.lower(): value for key, value in tags.items()}["prompt"]) == {"1": {"class_type": "Node"}}
