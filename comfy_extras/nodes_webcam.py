"""A picture from the camera, which the front end takes and uploads before it submits the prompt."""

from __future__ import annotations

from typing import Any

from comfy.nodes.conventions import MAX_RESOLUTION
from comfy.nodes.image import LoadImage, content_hash


class WebcamCapture:
    """The picture that was taken."""

    CATEGORY, FUNCTION, RETURN_TYPES = "image", "load_capture", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        side = {"default": 0, "min": 0, "max": MAX_RESOLUTION, "step": 1}
        return {
            "required": {
                "image": ("WEBCAM", {}),
                "width": ("INT", side),
                "height": ("INT", side),
                "capture_on_queue": ("BOOLEAN", {"default": True}),
            }
        }

    def load_capture(self, image: str, **_: Any) -> tuple[Any]:
        return (LoadImage().load_image(image)[0],)

    @classmethod
    def IS_CHANGED(cls, image: str, width: int, height: int, capture_on_queue: bool) -> str:
        return content_hash(image)


NODE_CLASS_MAPPINGS = {"WebcamCapture": WebcamCapture}
NODE_DISPLAY_NAME_MAPPINGS = {"WebcamCapture": "Webcam Capture"}
