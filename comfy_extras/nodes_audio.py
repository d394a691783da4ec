"""Nodes on sound. Maths: comfy/nodes/sound.py; files: contract files.md sections 2 to 4."""

from __future__ import annotations

from typing import Any

import torch

from comfy import folders
from comfy.errors import InputUnusable
from comfy.nodes import sound
from comfy.nodes.image import content_hash, input_files, validate_file
from comfy.nodes.results import random_suffix
from comfy.nodes.sound import Audio
from comfy.nodes.v3.node import HiddenHolder
from comfy.nodes.v3.ui import AudioSaveHelper

HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
PREFIX = ("STRING", {"default": "audio/ComfyUI"})

#: of silence, 4 GiB: over three hours in stereo at 44.1 kHz
MOST_SAMPLES = 2**30

Ui = dict[str, dict[str, Any]]


class _Hidden:
    """Lends a V1 node's hidden values to the V3 helper."""

    def __init__(self, prompt: Any, extra_pnginfo: Any) -> None:
        self.hidden = HiddenHolder({"prompt": prompt, "extra_pnginfo": extra_pnginfo})


def _save(audio: Audio, prefix: str, kind: str, format: str, quality: str, prompt: Any, extra_pnginfo: Any) -> Ui:
    results = AudioSaveHelper.save_audio(audio, prefix, kind, _Hidden(prompt, extra_pnginfo), format, quality)
    return {"ui": {"audio": results}}


class SaveAudio:
    """Sounds as FLAC files."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "audio", "save_flac", (), True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"audio": ("AUDIO",), "filename_prefix": PREFIX}, "hidden": HIDDEN}

    def save_flac(self, audio: Audio, filename_prefix: str = "ComfyUI", prompt: Any = None, extra_pnginfo: Any = None) -> Ui:
        return _save(audio, filename_prefix, "output", "flac", "128k", prompt, extra_pnginfo)


class SaveAudioMP3:
    """Sounds as MP3 files."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "audio", "save_mp3", (), True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        quality = (["V0", "128k", "320k"], {"default": "V0"})
        return {"required": {"audio": ("AUDIO",), "filename_prefix": PREFIX, "quality": quality}, "hidden": HIDDEN}

    def save_mp3(
        self, audio: Audio, filename_prefix: str = "ComfyUI", prompt: Any = None, extra_pnginfo: Any = None, quality: str = "128k"
    ) -> Ui:
        return _save(audio, filename_prefix, "output", "mp3", quality, prompt, extra_pnginfo)


class SaveAudioOpus:
    """Sounds as Opus files."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "audio", "save_opus", (), True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        quality = (["64k", "96k", "128k", "192k", "320k"], {"default": "128k"})
        return {"required": {"audio": ("AUDIO",), "filename_prefix": PREFIX, "quality": quality}, "hidden": HIDDEN}

    def save_opus(
        self, audio: Audio, filename_prefix: str = "ComfyUI", prompt: Any = None, extra_pnginfo: Any = None, quality: str = "128k"
    ) -> Ui:
        return _save(audio, filename_prefix, "output", "opus", quality, prompt, extra_pnginfo)


class PreviewAudio:
    """Sounds in the temp folder."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "audio", "preview", (), True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"audio": ("AUDIO",)}, "hidden": HIDDEN}

    def preview(self, audio: Audio, prompt: Any = None, extra_pnginfo: Any = None) -> Ui:
        return _save(audio, "ComfyUI" + random_suffix(), "temp", "flac", "128k", prompt, extra_pnginfo)


class _FromInput:
    """A sound of the input folder."""

    CATEGORY, FUNCTION, RETURN_TYPES = "audio", "load", ("AUDIO",)

    def load(self, audio: str) -> tuple[Audio]:
        return (sound.load_audio(folders.current().annotated_path(audio), audio),)

    @classmethod
    def IS_CHANGED(cls, audio: str) -> str:
        return content_hash(audio)


class LoadAudio(_FromInput):
    """A sound file, or the sound of a video."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"audio": (input_files("audio", "video"), {"audio_upload": True})}}

    @classmethod
    def VALIDATE_INPUTS(cls, audio: str) -> bool | str:
        return True if validate_file(audio) is True else f"Invalid audio file: {audio}"


class RecordAudio(_FromInput):
    """A sound from the microphone, which the front end uploads first."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"audio": ("AUDIO_RECORD", {})}}


class TrimAudioDuration:
    """Some seconds of a sound."""

    CATEGORY, FUNCTION, RETURN_TYPES = "audio", "trim", ("AUDIO",)
    DESCRIPTION = "Cuts a sound to the given time range."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        far = 2**64 - 1
        start = {"default": 0.0, "min": -far, "max": far, "step": 0.01, "tooltip": "Seconds; negative: from the end."}
        duration = {"default": 60.0, "min": 0.0, "step": 0.01, "tooltip": "Seconds."}
        return {"required": {"audio": ("AUDIO",), "start_index": ("FLOAT", start), "duration": ("FLOAT", duration)}}

    def trim(self, audio: Audio, start_index: float, duration: float) -> tuple[Audio]:
        return (sound.trim(audio, start_index, duration),)


class SplitAudioChannels:
    """Left and right apart."""

    CATEGORY, FUNCTION = "audio", "separate"
    RETURN_TYPES, RETURN_NAMES = ("AUDIO", "AUDIO"), ("left", "right")
    DESCRIPTION = "Gives the left and the right channel of a stereo sound."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"audio": ("AUDIO",)}}

    def separate(self, audio: Audio) -> tuple[Audio, Audio]:
        waveform, rate = audio["waveform"], audio["sample_rate"]
        if waveform.shape[1] != 2:
            raise InputUnusable("Only a sound with two channels can be split.", channels=waveform.shape[1])
        return {"waveform": waveform[:, :1], "sample_rate": rate}, {"waveform": waveform[:, 1:], "sample_rate": rate}


class AudioConcat:
    """One sound after another."""

    CATEGORY, FUNCTION, RETURN_TYPES = "audio", "concat", ("AUDIO",)
    DESCRIPTION = "Puts the second sound after or before the first."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        direction = (["after", "before"], {"default": "after", "tooltip": "Where the second sound goes."})
        return {"required": {"audio1": ("AUDIO",), "audio2": ("AUDIO",), "direction": direction}}

    def concat(self, audio1: Audio, audio2: Audio, direction: str) -> tuple[Audio]:
        return (sound.concat(audio1, audio2, direction),)


class AudioMerge:
    """Two sounds at once."""

    CATEGORY, FUNCTION, RETURN_TYPES = "audio", "merge", ("AUDIO",)
    DESCRIPTION = "Mixes two sounds."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        method = (["add", "mean", "subtract", "multiply"], {"tooltip": "How the two are combined."})
        return {"required": {"audio1": ("AUDIO",), "audio2": ("AUDIO",), "merge_method": method}}

    def merge(self, audio1: Audio, audio2: Audio, merge_method: str) -> tuple[Audio]:
        return (sound.merge(audio1, audio2, merge_method),)


class AudioAdjustVolume:
    """Louder or quieter by decibels."""

    CATEGORY, FUNCTION, RETURN_TYPES = "audio", "adjust_volume", ("AUDIO",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        volume = {"default": 1.0, "min": -100, "max": 100, "tooltip": "Decibels; 0 changes nothing, 6 doubles, -6 halves."}
        return {"required": {"audio": ("AUDIO",), "volume": ("INT", volume)}}

    def adjust_volume(self, audio: Audio, volume: int) -> tuple[Audio]:
        return ({"waveform": audio["waveform"] * 10 ** (volume / 20), "sample_rate": audio["sample_rate"]},)


class EmptyAudio:
    """Silence."""

    CATEGORY, FUNCTION, RETURN_TYPES = "audio", "create_empty_audio", ("AUDIO",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        duration = {"default": 60.0, "min": 0.0, "max": 2**64 - 1, "step": 0.01, "tooltip": "Seconds."}
        return {
            "required": {
                "duration": ("FLOAT", duration),
                "sample_rate": ("INT", {"default": 44100, "tooltip": "Samples per second."}),
                "channels": ("INT", {"default": 2, "min": 1, "max": 2, "tooltip": "1 mono, 2 stereo."}),
            }
        }

    def create_empty_audio(self, duration: float, sample_rate: int, channels: int) -> tuple[Audio]:
        samples = duration * sample_rate
        if sample_rate < 1 or samples * channels > MOST_SAMPLES:
            facts = {"duration": duration, "sample_rate": sample_rate, "samples_at_most": MOST_SAMPLES}
            raise InputUnusable("The rate must be positive and the silence fit in memory.", **facts)
        silence = torch.zeros((1, channels, round(samples)), dtype=torch.float32, device="cpu")
        return ({"waveform": silence, "sample_rate": sample_rate},)


NODE_CLASS_MAPPINGS = {
    "SaveAudio": SaveAudio,
    "SaveAudioMP3": SaveAudioMP3,
    "SaveAudioOpus": SaveAudioOpus,
    "LoadAudio": LoadAudio,
    "PreviewAudio": PreviewAudio,
    "RecordAudio": RecordAudio,
    "TrimAudioDuration": TrimAudioDuration,
    "SplitAudioChannels": SplitAudioChannels,
    "AudioConcat": AudioConcat,
    "AudioMerge": AudioMerge,
    "AudioAdjustVolume": AudioAdjustVolume,
    "EmptyAudio": EmptyAudio,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "SaveAudio": "Save Audio (FLAC)",
    "SaveAudioMP3": "Save Audio (MP3)",
    "SaveAudioOpus": "Save Audio (Opus)",
    "LoadAudio": "Load Audio",
    "PreviewAudio": "Preview Audio",
    "RecordAudio": "Record Audio",
    "TrimAudioDuration": "Trim Audio Duration",
    "SplitAudioChannels": "Split Audio Channels",
    "AudioConcat": "Audio Concat",
    "AudioMerge": "Audio Merge",
    "AudioAdjustVolume": "Audio Adjust Volume",
    "EmptyAudio": "Empty Audio",
}
