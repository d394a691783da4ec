"""Show any value as text."""

from __future__ import annotations

import json
from typing import Any

from comfy.nodes.v3.iotype import ANY, IoType


def as_text(value: Any) -> str:
    """Text as it is; numbers as Python writes them; what JSON can hold, indented; anything else by `str`."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value)
    if value is None:
        return "None"
    try:
        return json.dumps(value, indent=4)
    except (TypeError, ValueError, RecursionError):
        pass
    try:
        return str(value)
    except Exception:  # a value's own __str__ may raise anything; a preview must not end the job
        return f"{type(value).__name__}: it cannot be written as text."


class PreviewAny:
    """What a slot gives, as text under the node."""

    CATEGORY, FUNCTION, RETURN_TYPES = "utils", "main", ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"source": (IoType(ANY), {})}}

    def main(self, source: Any = None) -> dict[str, Any]:
        return {"ui": {"text": (as_text(source),)}}


NODE_CLASS_MAPPINGS = {"PreviewAny": PreviewAny}
NODE_DISPLAY_NAME_MAPPINGS = {"PreviewAny": "Preview Any"}
