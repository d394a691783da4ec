"""Sound as files (contract: files.md section 2). The encoders come from the optional package `av`."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import torch

from comfy.errors import InputUnusable, PackageMissing

#: sample rates that Opus knows, per second
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
#: mp3: constant bit rates beside V0, the variable one of best quality
MP3_BITRATES = {"128k": 128_000, "320k": 320_000}


def av_package() -> Any:
    """The `av` package. Raises PackageMissing."""
    try:
        import av
    except ImportError as error:
        raise PackageMissing(package="av") from error
    return av


def encode(waveform: torch.Tensor, sample_rate: int, format: str, quality: str = "128k", texts: Mapping[str, str] | None = None) -> bytes:
    """One sound as the bytes of a file, `texts` as container tags.

    waveform  (1 or 2 channels, samples) float in -1..1
    format    flac, mp3 or opus; quality: V0 or a bit rate such as 128k
    Raises PackageMissing, InputUnusable.
    """
    if format not in ("flac", "mp3", "opus") or waveform.ndim != 2 or waveform.shape[0] not in (1, 2):
        raise InputUnusable("Only one or two channels as flac, mp3 or opus.", format=format, shape=list(waveform.shape))
    av = av_package()
    rate = next((known for known in OPUS_RATES if known >= sample_rate), OPUS_RATES[-1]) if format == "opus" else sample_rate
    layout = "mono" if waveform.shape[0] == 1 else "stereo"
    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format=format) as container:
        for key, value in (texts or {}).items():
            container.metadata[key] = value
        codec = {"flac": "flac", "mp3": "libmp3lame", "opus": "libopus"}[format]
        stream = container.add_stream(codec, rate=rate, layout=layout)
        _set_quality(stream, format, quality)
        frame = av.AudioFrame.from_ndarray(_interleaved(waveform), format="flt", layout=layout)
        frame.sample_rate = sample_rate
        frame.pts = 0
        resampler = av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=rate)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _interleaved(waveform: torch.Tensor) -> Any:
    """(channels, samples) -> (1, channels x samples) float32, the order of packed sound."""
    return waveform.detach().float().movedim(0, 1).reshape(1, -1).contiguous().numpy()


def _set_quality(stream: Any, format: str, quality: str) -> None:
    if format == "mp3" and quality == "V0":
        stream.codec_context.qscale = 1
    elif format == "mp3":
        stream.bit_rate = MP3_BITRATES.get(quality, MP3_BITRATES["128k"])
    elif format == "opus":
        stream.bit_rate = int(quality.removesuffix("k")) * 1000
