"""What videos consist of."""

from comfy.nodes.v3.values import VideoCodec, VideoComponents, VideoContainer

__all__ = ["VideoCodec", "VideoComponents", "VideoContainer"]
