"""Nodes on videos, over the optional package `av` (contract: files.md sections 2 to 4)."""

from __future__ import annotations

import io as buffers
import os
from fractions import Fraction
from functools import partial
from typing import Any

import torch

from comfy import folders
from comfy.errors import FileMissing, InputUnusable
from comfy.images_io import to_uint8
from comfy.nodes.image import input_files, validate_file
from comfy.nodes.results import save_files, texts_for
from comfy.nodes.v3 import io, ui
from comfy.nodes.v3.audio import av_package
from comfy.nodes.v3.values import VideoCodec, VideoComponents, VideoContainer, VideoInput
from comfy.nodes.v3.video import VideoFromComponents, VideoFromFile


def webm_bytes(images: torch.Tensor, codec: str, fps: float, crf: float, texts: dict[str, str]) -> bytes:
    """(frames, h, w, 3) as WebM: VP9 in yuv420p, or AV1 in yuv420p10le with preset 6; the rate in thousandths."""
    av = av_package()
    buffer = buffers.BytesIO()
    with av.open(buffer, mode="w", format="webm") as container:
        for key, value in texts.items():
            container.metadata[key] = value
        stream = container.add_stream({"vp9": "libvpx-vp9", "av1": "libsvtav1"}[codec], rate=Fraction(round(fps * 1000), 1000))
        stream.height, stream.width = images.shape[1:3]
        stream.pix_fmt = "yuv420p10le" if codec == "av1" else "yuv420p"
        stream.bit_rate = 0
        stream.options = {"crf": str(int(crf)), **({"preset": "6"} if codec == "av1" else {})}
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(to_uint8(image[..., :3]), format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


class SaveWEBM(io.ComfyNode):
    """A batch as one WebM video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SaveWEBM",
            category="image/video",
            is_experimental=True,
            is_output_node=True,
            inputs=[
                io.Image.Input("images"),
                io.String.Input("filename_prefix", default="ComfyUI"),
                io.Combo.Input("codec", options=["vp9", "av1"]),
                io.Float.Input("fps", default=24.0, min=0.01, max=1000.0, step=0.01),
                io.Float.Input("crf", default=32.0, min=0, max=63.0, step=1, tooltip="Higher: smaller file, worse picture."),
            ],
        )

    @classmethod
    def execute(cls, images: torch.Tensor, filename_prefix: str, codec: str, fps: float, crf: float) -> io.NodeOutput:
        if codec not in ("vp9", "av1"):
            raise InputUnusable("The codec must be vp9 or av1.", codec=codec)
        texts = texts_for(cls.hidden.prompt, cls.hidden.extra_pnginfo)
        file = partial(webm_bytes, images, codec, fps, crf, texts)
        results = save_files([file], filename_prefix, ".webm", "output", images.shape[2], images.shape[1])
        return io.NodeOutput(ui=ui.PreviewVideo(results))


class SaveVideo(io.ComfyNode):
    """A video as a file; an unchanged source is copied without encoding it again."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SaveVideo",
            display_name="Save Video",
            category="image/video",
            description="Saves a video in the output folder.",
            is_output_node=True,
            inputs=[
                io.Video.Input("video"),
                io.String.Input("filename_prefix", default="video/ComfyUI"),
                io.Combo.Input("format", options=VideoContainer.as_input(), default="auto"),
                io.Combo.Input("codec", options=VideoCodec.as_input(), default="auto"),
            ],
        )

    @classmethod
    def execute(cls, video: VideoInput, filename_prefix: str, format: str, codec: str) -> io.NodeOutput:
        if format not in VideoContainer.as_input() or codec not in VideoCodec.as_input():
            raise InputUnusable("The format or the codec is not known.", format=format, codec=codec)
        texts = texts_for(cls.hidden.prompt, cls.hidden.extra_pnginfo)
        width, height = video.get_dimensions()

        def encoded() -> bytes:
            buffer = buffers.BytesIO()
            video.save_to(buffer, VideoContainer(format), VideoCodec(codec), texts)
            return buffer.getvalue()

        suffix = "." + VideoContainer.get_extension(format)
        return io.NodeOutput(ui=ui.PreviewVideo(save_files([encoded], filename_prefix, suffix, "output", width, height)))


class CreateVideo(io.ComfyNode):
    """A video from pictures and sound."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CreateVideo",
            display_name="Create Video",
            category="image/video",
            description="Makes a video from pictures.",
            inputs=[
                io.Image.Input("images", tooltip="The frames."),
                io.Float.Input("fps", default=30.0, min=1.0, max=120.0, step=1.0),
                io.Audio.Input("audio", optional=True, tooltip="The sound."),
            ],
            outputs=[io.Video.Output()],
        )

    @classmethod
    def execute(cls, images: torch.Tensor, fps: float, audio: Any = None) -> io.NodeOutput:
        return io.NodeOutput(VideoFromComponents(VideoComponents(images, Fraction(fps), audio)))


class GetVideoComponents(io.ComfyNode):
    """A video taken apart."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GetVideoComponents",
            display_name="Get Video Components",
            category="image/video",
            description="Gives the frames, the sound and the frame rate of a video.",
            inputs=[io.Video.Input("video", tooltip="The video to take apart.")],
            outputs=[
                io.Image.Output(display_name="images"),
                io.Audio.Output(display_name="audio"),
                io.Float.Output(display_name="fps"),
            ],
        )

    @classmethod
    def execute(cls, video: VideoInput) -> io.NodeOutput:
        parts = video.get_components()
        return io.NodeOutput(parts.images, parts.audio, float(parts.frame_rate))


class LoadVideo(io.ComfyNode):
    """A video of the input folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoadVideo",
            display_name="Load Video",
            category="image/video",
            inputs=[io.Combo.Input("file", options=input_files("video"), upload=io.UploadType.video)],
            outputs=[io.Video.Output()],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        path = folders.current().annotated_path(file)
        if not os.path.isfile(path):
            raise FileMissing(filename=file)
        return io.NodeOutput(VideoFromFile(path))

    @classmethod
    def fingerprint_inputs(cls, file: str) -> Any:
        try:
            return os.path.getmtime(folders.current().annotated_path(file))
        except OSError:
            raise FileMissing(filename=file) from None

    @classmethod
    def validate_inputs(cls, file: str) -> bool | str:
        return True if validate_file(file) is True else f"Invalid video file: {file}"


NODES: list[type[io.ComfyNode]] = [SaveWEBM, SaveVideo, CreateVideo, GetVideoComponents, LoadVideo]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
