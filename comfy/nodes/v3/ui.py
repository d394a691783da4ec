"""What a V3 node shows under itself, and the files that this needs (contract: custom-nodes.md section 4.5)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from comfy.errors import InputUnusable
from comfy.images_io import apng_bytes, png_bytes, webp_bytes
from comfy.nodes.results import Result, pixels_of, random_suffix, save_files, texts_for
from comfy.nodes.v3.audio import encode as encode_audio
from comfy.nodes.v3.base import plain
from comfy.nodes.v3.widgets import FolderType
from comfy.pixels import masks


class SavedResult(dict[str, Any]):
    """One file: its name, its folder below the output (or temp, or input) folder, and which of these."""

    def __init__(self, filename: str, subfolder: str, type: FolderType | str) -> None:
        super().__init__(filename=filename, subfolder=subfolder, type=plain(type))

    @property
    def filename(self) -> str:
        """The file's name."""
        return str(self["filename"])

    @property
    def subfolder(self) -> str:
        """Its folder."""
        return str(self["subfolder"])

    @property
    def type(self) -> FolderType:
        """Which folder that is below."""
        return FolderType(self["type"])


def _saved(results: Sequence[Result]) -> list[SavedResult]:
    return [SavedResult(one["filename"], one["subfolder"], one["type"]) for one in results]


class UIOutput:
    """Base of all that has `as_dict`."""

    def as_dict(self) -> dict[str, Any]:
        """What clients get under the node's id."""
        return {}


class SavedImages(UIOutput):
    """Pictures that were saved."""

    def __init__(self, results: Sequence[Any], is_animated: bool = False) -> None:
        self.results = list(results)
        self.is_animated = is_animated

    def as_dict(self) -> dict[str, Any]:
        return {"images": self.results, **({"animated": (True,)} if self.is_animated else {})}


class SavedAudios(UIOutput):
    """Sounds that were saved."""

    def __init__(self, results: Sequence[Any]) -> None:
        self.results = list(results)

    def as_dict(self) -> dict[str, Any]:
        return {"audio": self.results}


def _texts(cls: Any) -> dict[str, str]:
    """What is embedded: from the node's hidden values, unless --disable-metadata."""
    hidden = getattr(cls, "hidden", None)
    return texts_for(hidden.prompt, hidden.extra_pnginfo) if hidden is not None else {}


class ImageSaveHelper:
    """Pictures as files."""

    @staticmethod
    def save_images(
        images: torch.Tensor, filename_prefix: str, folder_type: FolderType | str, cls: Any, compress_level: int = 4
    ) -> list[SavedResult]:
        """One PNG per picture of (b, h, w, c)."""
        pixels, texts = pixels_of(images), _texts(cls)
        height, width = pixels[0].shape[:2]
        files = [partial(png_bytes, one, texts, compress_level) for one in pixels]
        return _saved(save_files(files, filename_prefix, ".png", plain(folder_type), width, height))

    @staticmethod
    def get_save_images_ui(images: torch.Tensor, filename_prefix: str, cls: Any, compress_level: int = 4) -> SavedImages:
        """The same in the output folder, as what the node shows."""
        return SavedImages(ImageSaveHelper.save_images(images, filename_prefix, FolderType.output, cls, compress_level))

    @staticmethod
    def save_animated_png(
        images: torch.Tensor, filename_prefix: str, folder_type: FolderType | str, cls: Any, fps: float, compress_level: int
    ) -> SavedResult:
        """One animated PNG."""
        frames = np.stack(pixels_of(images))
        file = partial(apng_bytes, frames, _texts(cls), level=compress_level, fps=fps)
        return _saved(save_files([file], filename_prefix, ".png", plain(folder_type), frames.shape[2], frames.shape[1]))[0]

    @staticmethod
    def get_save_animated_png_ui(images: torch.Tensor, filename_prefix: str, cls: Any, fps: float, compress_level: int) -> SavedImages:
        """The same in the output folder, as what the node shows."""
        result = ImageSaveHelper.save_animated_png(images, filename_prefix, FolderType.output, cls, fps, compress_level)
        return SavedImages([result], is_animated=len(images) > 1)

    @staticmethod
    def save_animated_webp(
        images: torch.Tensor,
        filename_prefix: str,
        folder_type: FolderType | str,
        cls: Any,
        fps: float,
        lossless: bool,
        quality: int,
        method: int,
    ) -> SavedResult:
        """One animated WebP."""
        frames = pixels_of(images)
        file = partial(webp_bytes, frames, _texts(cls), fps=fps, lossless=lossless, quality=quality, method=method)
        height, width = frames[0].shape[:2]
        return _saved(save_files([file], filename_prefix, ".webp", plain(folder_type), width, height))[0]

    @staticmethod
    def get_save_animated_webp_ui(
        images: torch.Tensor, filename_prefix: str, cls: Any, fps: float, lossless: bool, quality: int, method: int
    ) -> SavedImages:
        """The same in the output folder, as what the node shows."""
        result = ImageSaveHelper.save_animated_webp(images, filename_prefix, FolderType.output, cls, fps, lossless, quality, method)
        return SavedImages([result], is_animated=len(images) > 1)


class AudioSaveHelper:
    """Sounds as files."""

    @staticmethod
    def save_audio(
        audio: dict[str, Any],
        filename_prefix: str,
        folder_type: FolderType | str,
        cls: Any,
        format: str = "flac",
        quality: str = "128k",
    ) -> list[SavedResult]:
        """One file per item of the batch: flac, mp3 or opus. Raises PackageMissing without the `av` package."""
        waveforms, rate, texts = audio["waveform"], int(audio["sample_rate"]), _texts(cls)
        if waveforms.ndim != 3:
            raise InputUnusable("A waveform has the shape (batch, channels, samples).", shape=list(waveforms.shape))
        files = [partial(encode_audio, one, rate, format, quality, texts) for one in waveforms.cpu()]
        return _saved(save_files(files, filename_prefix, f".{format}", plain(folder_type)))

    @staticmethod
    def get_save_audio_ui(
        audio: dict[str, Any], filename_prefix: str, cls: Any, format: str = "flac", quality: str = "128k"
    ) -> SavedAudios:
        """The same in the output folder, as what the node shows."""
        return SavedAudios(AudioSaveHelper.save_audio(audio, filename_prefix, FolderType.output, cls, format, quality))


class PreviewImage(UIOutput):
    """Pictures in the temp folder; written when this is made."""

    def __init__(self, image: torch.Tensor, animated: bool = False, cls: Any = None, **_: Any) -> None:
        self.values = ImageSaveHelper.save_images(image, "ComfyUI" + random_suffix(), FolderType.temp, cls, compress_level=1)
        self.animated = animated

    def as_dict(self) -> dict[str, Any]:
        return {"images": self.values, "animated": (self.animated,)}


class PreviewMask(PreviewImage):
    """A mask as a grey picture."""

    def __init__(self, mask: torch.Tensor, animated: bool = False, cls: Any = None, **_: Any) -> None:
        super().__init__(masks.to_image(mask), animated, cls)


class PreviewAudio(UIOutput):
    """Sounds in the temp folder."""

    def __init__(self, audio: dict[str, Any], cls: Any = None, **_: Any) -> None:
        self.values = AudioSaveHelper.save_audio(audio, "ComfyUI" + random_suffix(), FolderType.temp, cls, "flac")

    def as_dict(self) -> dict[str, Any]:
        return {"audio": self.values}


class PreviewVideo(UIOutput):
    """Videos that lie somewhere already."""

    def __init__(self, values: Sequence[Any], **_: Any) -> None:
        self.values = list(values)

    def as_dict(self) -> dict[str, Any]:
        return {"images": self.values, "animated": (True,)}


class PreviewText(UIOutput):
    """Text."""

    def __init__(self, value: str, **_: Any) -> None:
        self.value = value

    def as_dict(self) -> dict[str, Any]:
        return {"text": (self.value,)}


class PreviewUI3D(UIOutput):
    """A 3D model and where it is seen from."""

    def __init__(self, model_file: str, camera_info: Any, **_: Any) -> None:
        self.model_file = model_file
        self.camera_info = camera_info

    def as_dict(self) -> dict[str, Any]:
        return {"result": [self.model_file, self.camera_info]}
