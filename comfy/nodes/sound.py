"""Sound: decoding files, resampling, mixing. AUDIO is {"waveform": (b, channels, samples) -1..1, "sample_rate": int}.

From textbooks, not compared with recordings: the contract gives no formula for these.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from comfy.errors import FileMissing, InputUnusable
from comfy.nodes.v3.audio import av_package

Audio = dict[str, Any]

#: zero crossings of the sinc on each side, and how much of the band is kept
CROSSINGS, ROLLOFF = 6, 0.99


def load_audio(path: str, name: str) -> Audio:
    """The first sound stream of an audio or video file. Raises PackageMissing, FileMissing, InputUnusable."""
    av = av_package()
    try:
        with av.open(path) as container:
            if not container.streams.audio:
                raise InputUnusable("The file has no sound.", filename=name)
            stream = container.streams.audio[0]
            rate, channels = int(stream.codec_context.sample_rate), int(stream.channels)
            resampler = av.AudioResampler(format="fltp")
            parts = [part for frame in container.decode(stream) for part in resampler.resample(frame)]
            parts += resampler.resample(None)
    except FileNotFoundError:
        raise FileMissing(filename=name) from None
    except (av.error.FFmpegError, OSError) as error:
        raise InputUnusable("The file is no sound that can be read.", filename=name, reason=type(error).__name__) from error
    if not parts:
        raise InputUnusable("The file has no sound.", filename=name)
    samples = np.concatenate([part.to_ndarray() for part in parts], axis=1)
    return {"waveform": torch.from_numpy(samples[:channels]).unsqueeze(0), "sample_rate": rate}


def resample(waveform: torch.Tensor, rate: int, new_rate: int) -> torch.Tensor:
    """Band-limited interpolation with a Hann-windowed sinc (J. O. Smith, Digital Audio Resampling Home Page).

    waveform  (b, channels, samples); returns (b, channels, ceil(samples new_rate / rate))
    """
    if rate == new_rate:
        return waveform
    divisor = math.gcd(rate, new_rate)
    old, new = rate // divisor, new_rate // divisor
    cutoff = min(old, new) * ROLLOFF
    width = math.ceil(CROSSINGS * old / cutoff)
    taps = torch.arange(-width, width + old, dtype=torch.float64) / old
    offsets = torch.arange(0, -new, -1, dtype=torch.float64)[:, None] / new
    time = ((offsets + taps) * cutoff).clamp(-CROSSINGS, CROSSINGS)
    kernels = torch.sinc(time) * torch.cos(time * math.pi / CROSSINGS / 2) ** 2 * (cutoff / old)
    flat = waveform.reshape(-1, 1, waveform.shape[-1])
    made = F.conv1d(F.pad(flat, (width, width + old)), kernels[:, None].to(flat), stride=old)
    length = math.ceil(new * waveform.shape[-1] / old)
    return made.transpose(1, 2).reshape(flat.shape[0], -1)[:, :length].reshape(*waveform.shape[:-1], length)


def matched(audio1: Audio, audio2: Audio) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Both waveforms at the higher of the two rates, stereo when one of them is."""
    rate = max(audio1["sample_rate"], audio2["sample_rate"])
    waves = [resample(audio["waveform"], audio["sample_rate"], rate) for audio in (audio1, audio2)]
    channels = max(wave.shape[1] for wave in waves)
    waves = [wave.expand(-1, channels, -1) if wave.shape[1] == 1 else wave for wave in waves]
    if waves[0].shape[:2] != waves[1].shape[:2]:
        raise InputUnusable("The sounds' batches or channels differ.", first=list(waves[0].shape), second=list(waves[1].shape))
    return waves[0], waves[1], rate


def concat(audio1: Audio, audio2: Audio, direction: str) -> Audio:
    """The second sound after or before the first."""
    first, second, rate = matched(audio1, audio2)
    pair = (first, second) if direction == "after" else (second, first)
    return {"waveform": torch.cat(pair, dim=-1), "sample_rate": rate}


def merge(audio1: Audio, audio2: Audio, method: str) -> Audio:
    """Both at once, as long as the first; made quieter as a whole where the sum would go over 1."""
    first, second, rate = matched(audio1, audio2)
    length = first.shape[-1]
    second = F.pad(second[..., :length], (0, max(0, length - second.shape[-1])))
    if method == "add":
        mixed = first + second
    elif method == "mean":
        mixed = (first + second) / 2
    elif method == "subtract":
        mixed = first - second
    elif method == "multiply":
        mixed = first * second
    else:
        raise InputUnusable("The way of merging is not known.", merge_method=method)
    peak = mixed.abs().max() if mixed.numel() else mixed.new_zeros(())
    return {"waveform": mixed / peak if peak > 1.0 else mixed, "sample_rate": rate}


def trim(audio: Audio, start_s: float, duration_s: float) -> Audio:
    """The seconds from `start_s`, counted from the end when negative. Raises InputUnusable when nothing is left."""
    waveform, rate = audio["waveform"], audio["sample_rate"]
    length = waveform.shape[-1]
    start = round(start_s * rate) + (length if start_s < 0 else 0)
    start = max(0, min(start, length))
    end = min(length, start + round(duration_s * rate))
    if end <= start:
        raise InputUnusable("Nothing is left of the sound.", start_s=start_s, duration_s=duration_s, seconds=length / rate)
    return {"waveform": waveform[..., start:end], "sample_rate": rate}
