"""3D models in the front end's viewer."""

from __future__ import annotations

from typing import Any


class Preview3D:
    """Show a 3D model file; the viewer runs in the browser."""

    CATEGORY, FUNCTION, RETURN_TYPES = "3d", "process", ()
    OUTPUT_NODE, EXPERIMENTAL = True, True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"model_file": ("STRING", {"default": "", "multiline": False})},
            "optional": {"camera_info": ("LOAD3D_CAMERA", {})},
        }

    def process(self, model_file: str, camera_info: Any = None, **_: Any) -> dict[str, Any]:
        return {"ui": {"result": [model_file, camera_info]}}


class Preview3DAnimation(Preview3D):
    """The same for a model that moves."""


NODE_CLASS_MAPPINGS = {"Preview3D": Preview3D, "Preview3DAnimation": Preview3DAnimation}
NODE_DISPLAY_NAME_MAPPINGS = {"Preview3D": "Preview 3D", "Preview3DAnimation": "Preview 3D - Animation"}
