from __future__ import annotations

import json

from PIL import Image

from comfy.web import frames
from comfy.web.frames import BinaryEventTypes


def test_a_legacy_preview_is_kind_format_picture() -> None:
    assert frames.frame(1, frames.image_payload(b"\xff\xd8", "image/jpeg")).hex() == "0000000100000001ffd8"
    assert frames.frame(1, frames.image_payload(b"\x89P", "image/png")).hex() == "00000001000000028950"


def test_progress_text_is_kind_length_node_text() -> None:
    assert frames.frame(3, frames.text_payload("hello", "t")).hex() == "000000030000000174" + b"hello".hex()
    assert frames.text_payload("ü", "ñ") == b"\0\0\0\2" + "ñü".encode()


def test_a_preview_with_metadata_is_kind_length_json_picture() -> None:
    data = frames.frame(4, frames.metadata_payload(b"PIC", {"node_id": "1", "parent_node_id": None}))
    length = int.from_bytes(data[4:8], "big")
    assert data[:4] == b"\0\0\0\4"
    assert json.loads(data[8 : 8 + length]) == {"node_id": "1", "parent_node_id": None}
    assert data[8 + length :] == b"PIC"


def test_what_custom_nodes_send_becomes_a_payload() -> None:
    picture = ("PNG", Image.new("RGB", (2, 2)), None)
    assert frames.payload_of(3, bytearray(b"x")) == (3, b"x")
    kind, payload = frames.payload_of(BinaryEventTypes.UNENCODED_PREVIEW_IMAGE, picture)
    assert (kind, payload[:8]) == (1, b"\0\0\0\2\x89PNG")
    kind, payload = frames.payload_of(BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA, (picture, {"node_id": "1"}))
    length = int.from_bytes(payload[:4], "big")
    assert (kind, json.loads(payload[4 : 4 + length])) == (4, {"node_id": "1", "image_type": "image/png"})
    assert payload[4 + length :].startswith(b"\x89PNG")
