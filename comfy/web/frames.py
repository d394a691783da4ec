"""Binary websocket frames (contract: websocket.md section 5): big-endian 32-bit integers, then text or picture bytes."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from comfy import jsonio
from comfy_execution.progress import encode_preview

_U32 = struct.Struct(">I")


class BinaryEventTypes(IntEnum):
    """The first integer of a frame."""

    PREVIEW_IMAGE = 1
    UNENCODED_PREVIEW_IMAGE = 2  #: inside the server only: (format, PIL image, max side or None)
    TEXT = 3
    PREVIEW_IMAGE_WITH_METADATA = 4


def frame(kind: int, payload: bytes) -> bytes:
    """A whole frame."""
    return _U32.pack(kind) + payload


def image_payload(image: bytes, image_type: str) -> bytes:
    """Payload of kind 1: the format (1 JPEG, 2 PNG), then the picture."""
    return _U32.pack(2 if image_type == "image/png" else 1) + image


def metadata_payload(image: bytes, metadata: Mapping[str, Any]) -> bytes:
    """Payload of kind 4: length of the JSON, the JSON, then the picture."""
    text = jsonio.dump_bytes(metadata)
    return _U32.pack(len(text)) + text + image


def text_payload(text: str | bytes, node_id: str) -> bytes:
    """Payload of kind 3: length of the node id, the node id, then the text."""
    node = node_id.encode("utf-8", "replace")
    return _U32.pack(len(node)) + node + (text.encode("utf-8", "replace") if isinstance(text, str) else bytes(text))


def payload_of(kind: int, data: Any) -> tuple[int, bytes]:
    """What a custom node sends under an integer event -> (kind on the wire, payload).

    Bytes go through as they are. Kind 2 takes (format, PIL image, max side) and leaves as kind 1; kind 4 takes
    ((format, PIL image, max side), metadata) as well.
    """
    if isinstance(data, (bytes, bytearray, memoryview)):
        return int(kind), bytes(data)
    if kind == BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA:
        picture, metadata = data
        image, image_type = encode_preview(picture)
        return int(kind), metadata_payload(image, {**metadata, "image_type": image_type})
    image, image_type = encode_preview(data)
    return int(BinaryEventTypes.PREVIEW_IMAGE), image_payload(image, image_type)
