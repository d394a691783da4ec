"""Values that V3 nodes pass on: videos and drawings (contract: custom-nodes.md section 4.6)."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import Any, TypedDict

import torch

ImageInput = torch.Tensor  #: (b, h, w, c) float in 0..1
MaskInput = torch.Tensor  #: (b, h, w) float in 0..1


class AudioInput(TypedDict):
    """AUDIO: sound of a batch."""

    waveform: torch.Tensor  #: (b, channels, samples) float in -1..1
    sample_rate: int  #: samples per second


class LatentInput(TypedDict, total=False):
    """LATENT: what samplers work on."""

    samples: torch.Tensor  #: (b, c, h, w) or (b, c, t, h, w)
    noise_mask: torch.Tensor | None
    batch_index: list[int] | None


class VideoCodec(str, Enum):
    """How pictures are compressed."""

    AUTO = "auto"
    H264 = "h264"

    @classmethod
    def as_input(cls) -> list[str]:
        """The choices of a combo."""
        return [member.value for member in cls]


class VideoContainer(str, Enum):
    """The kind of file."""

    AUTO = "auto"
    MP4 = "mp4"

    @classmethod
    def as_input(cls) -> list[str]:
        """The choices of a combo."""
        return [member.value for member in cls]

    @classmethod
    def get_extension(cls, value: str | VideoContainer) -> str:
        """File suffix without the dot."""
        return "mp4" if cls(value) in (cls.AUTO, cls.MP4) else ""


@dataclass
class VideoComponents:
    """A video taken apart."""

    images: torch.Tensor  #: (frames, h, w, 3)
    frame_rate: Fraction
    audio: AudioInput | None = None
    metadata: Mapping[str, Any] | None = None


class VideoInput(ABC):
    """VIDEO: something that can be taken apart and saved."""

    @abstractmethod
    def get_components(self) -> VideoComponents:
        """All frames and the sound, decoded."""

    @abstractmethod
    def save_to(
        self,
        path: Any,
        format: VideoContainer = VideoContainer.AUTO,
        codec: VideoCodec = VideoCodec.AUTO,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a file; an unchanged source is copied without encoding it again."""

    def get_stream_source(self) -> str | io.BytesIO:
        """A path or a buffer with the encoded video."""
        buffer = io.BytesIO()
        self.save_to(buffer)
        buffer.seek(0)
        return buffer

    def get_dimensions(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        images = self.get_components().images
        return int(images.shape[2]), int(images.shape[1])

    def get_duration(self) -> float:
        """Seconds."""
        parts = self.get_components()
        return float(parts.images.shape[0] / parts.frame_rate)

    def get_container_format(self) -> str:
        """Names of the container's format, as the decoder has them."""
        return "mov,mp4,m4a,3gp,3g2,mj2"


class SVG:
    """Vector drawings, one buffer each."""

    def __init__(self, data: Sequence[io.BytesIO]) -> None:
        self.data = list(data)

    def combine(self, other: SVG) -> SVG:
        """The drawings of both."""
        return SVG(self.data + other.data)

    @staticmethod
    def combine_all(svgs: Sequence[SVG]) -> SVG:
        """The drawings of all."""
        return SVG([one for svg in svgs for one in svg.data])
