"""`Input.Video`, `InputImpl.VideoFromFile`, `Types.VideoCodec`: the value classes grouped by what they are for."""

from __future__ import annotations

from comfy.nodes.v3.values import (
    AudioInput,
    ImageInput,
    LatentInput,
    MaskInput,
    VideoCodec,
    VideoComponents,
    VideoContainer,
    VideoInput,
)
from comfy.nodes.v3.video import VideoFromComponents, VideoFromFile


class Input:
    """Types of what nodes are given."""

    Image = ImageInput
    Mask = MaskInput
    Audio = AudioInput
    Latent = LatentInput
    Video = VideoInput


class InputImpl:
    """Ways to make such values."""

    VideoFromFile = VideoFromFile
    VideoFromComponents = VideoFromComponents


class Types:
    """What they consist of."""

    VideoCodec = VideoCodec
    VideoContainer = VideoContainer
    VideoComponents = VideoComponents
