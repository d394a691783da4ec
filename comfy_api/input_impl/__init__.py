"""Videos from files and from frames."""

from comfy.nodes.v3.video import VideoFromComponents, VideoFromFile

__all__ = ["VideoFromComponents", "VideoFromFile"]
