"""Videos from files and from frames, through the optional package `av`."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from comfy.errors import InputUnusable
from comfy.images_io import to_uint8
from comfy.nodes.v3.audio import av_package
from comfy.nodes.v3.values import AudioInput, VideoCodec, VideoComponents, VideoContainer, VideoInput


def _texts(metadata: Mapping[str, Any] | None) -> dict[str, str]:
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in (metadata or {}).items()}


class VideoFromFile(VideoInput):
    """A path, or a buffer with an encoded video."""

    def __init__(self, file: str | io.BytesIO) -> None:
        self._file = file

    def get_stream_source(self) -> str | io.BytesIO:
        if isinstance(self._file, io.BytesIO):
            self._file.seek(0)
        return self._file

    def _open(self) -> Any:
        av = av_package()
        try:
            return av.open(self.get_stream_source(), mode="r")
        except (av.error.FFmpegError, OSError) as error:
            raise InputUnusable("The file is no video that can be read.", reason=type(error).__name__) from error

    def get_container_format(self) -> str:
        with self._open() as container:
            return str(container.format.name)

    def get_dimensions(self) -> tuple[int, int]:
        with self._open() as container:
            stream = _video_stream(container)
            return int(stream.width), int(stream.height)

    def get_duration(self) -> float:
        with self._open() as container:
            if container.duration is not None:
                return float(container.duration / av_package().time_base)
            stream = _video_stream(container)
            frames = sum(1 for _ in container.decode(stream))
            return float(frames / (stream.average_rate or 1))

    def get_components(self) -> VideoComponents:
        with self._open() as container:
            stream = _video_stream(container)
            frames = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)]
            rate = Fraction(stream.average_rate) if stream.average_rate else Fraction(1)
            metadata = dict(container.metadata)
        if not frames:
            raise InputUnusable("The video has no frame.")
        return VideoComponents(torch.stack(frames).float() / 255.0, rate, self._sound(), metadata)

    def _sound(self) -> AudioInput | None:
        with self._open() as container:
            if not container.streams.audio:
                return None
            stream = container.streams.audio[0]
            layout = "mono" if stream.channels == 1 else "stereo"
            resampler = av_package().AudioResampler(format="fltp", layout=layout)
            parts = [part for frame in container.decode(stream) for part in resampler.resample(frame)] + resampler.resample(None)
            rate = int(stream.sample_rate)
        if not parts:
            return None
        waveform = torch.from_numpy(np.concatenate([part.to_ndarray() for part in parts], axis=1))
        return {"waveform": waveform.unsqueeze(0), "sample_rate": rate}

    def save_to(
        self,
        path: Any,
        format: VideoContainer = VideoContainer.AUTO,
        codec: VideoCodec = VideoCodec.AUTO,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        with self._open() as source:
            kept = VideoContainer(format) is VideoContainer.AUTO or VideoContainer(format).value in source.format.name.split(",")
            stream = _video_stream(source)
            if kept and codec_matches(stream, codec):
                _remux(source, path, _texts(metadata))
                return
        VideoFromComponents(self.get_components()).save_to(path, format, codec, metadata)


def codec_matches(stream: Any, codec: VideoCodec | str) -> bool:
    """Whether the stream is already compressed as asked."""
    return VideoCodec(codec) is VideoCodec.AUTO or str(stream.codec_context.name) == VideoCodec(codec).value


def _video_stream(container: Any) -> Any:
    if not container.streams.video:
        raise InputUnusable("The file has no video stream.")
    return container.streams.video[0]


def _remux(source: Any, path: Any, texts: Mapping[str, str]) -> None:
    """Copy the packets of a video as they are, with other metadata."""
    options: dict[str, Any] = {"options": {"movflags": "use_metadata_tags"}}
    if not isinstance(path, str):
        options["format"] = source.format.name.split(",")[0] if "mp4" not in source.format.name else "mp4"
    with av_package().open(path, mode="w", **options) as target:
        for key, value in {**source.metadata, **texts}.items():
            target.metadata[key] = value
        streams = {
            stream.index: target.add_stream_from_template(template=stream)
            for stream in source.streams
            if stream.type in ("video", "audio", "subtitle")
        }
        for packet in source.demux():
            if packet.dts is not None and packet.stream.index in streams:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)


class VideoFromComponents(VideoInput):
    """Frames and sound in memory."""

    def __init__(self, components: VideoComponents) -> None:
        self._components = components

    def get_components(self) -> VideoComponents:
        return self._components

    def save_to(
        self,
        path: Any,
        format: VideoContainer = VideoContainer.AUTO,
        codec: VideoCodec = VideoCodec.AUTO,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """MP4 with H.264 (yuv420p) and AAC. Raises PackageMissing, InputUnusable."""
        VideoContainer(format), VideoCodec(codec)  # a name nobody knows raises ValueError before anything is written
        parts = self._components
        height, width = parts.images.shape[1:3]
        if height % 2 or width % 2:
            raise InputUnusable("H.264 needs even sides.", width=width, height=height)
        with av_package().open(path, mode="w", format="mp4", options={"movflags": "use_metadata_tags"}) as target:
            for key, value in _texts(metadata).items():
                target.metadata[key] = value
            stream = target.add_stream("h264", rate=Fraction(round(parts.frame_rate * 1000), 1000))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            sound = _add_sound(target, parts)
            for frame in parts.images:
                target.mux(stream.encode(av_package().VideoFrame.from_ndarray(to_uint8(frame[..., :3]), format="rgb24")))
            target.mux(stream.encode(None))
            for packet in sound:
                target.mux(packet)


def _add_sound(target: Any, parts: VideoComponents) -> Iterator[Any]:
    """The stream for the sound, made at once, and an iterator that encodes it."""
    if parts.audio is None:
        return iter(())
    rate = int(parts.audio["sample_rate"])
    seconds = parts.images.shape[0] / parts.frame_rate
    waveform = parts.audio["waveform"][0][:, : int(seconds * rate)]
    layout = "mono" if waveform.shape[0] == 1 else "stereo"
    stream = target.add_stream("aac", rate=rate, layout=layout)

    def encoded() -> Iterator[Any]:
        samples = waveform.detach().cpu().float().movedim(0, 1).reshape(1, -1).contiguous().numpy()
        frame = av_package().AudioFrame.from_ndarray(samples, format="flt", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        yield from stream.encode(frame)
        yield from stream.encode(None)

    return encoded()
