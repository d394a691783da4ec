"""Request bodies: size limits and JSON, whatever content type the client named."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from aiohttp import web

from comfy.errors import BadRequest, BodyInvalid, BodyTooLarge, InvalidJson
from comfy.units import MIB

PIECES = 2  #: {"prompt": {node: …}}
_DECODER = json.JSONDecoder()
_BLANK = re.compile(r"[ \t\n\r]*")

PARSE_ON_LOOP_BYTES = MIB  #: larger bodies are parsed in a thread, so that other clients need not wait


async def read_body(request: web.Request, limit_bytes: int, too_large: type[BodyTooLarge] = BodyTooLarge) -> bytes:
    """The whole body, decompressed. Raises `too_large` over `limit_bytes`, BadRequest when its encoding is broken."""
    if request.content_length is not None and request.content_length > limit_bytes:
        raise too_large(limit_bytes=limit_bytes)
    chunks, size = [], 0
    try:
        async for chunk in request.content.iter_any():
            size += len(chunk)
            if size > limit_bytes:
                raise too_large(limit_bytes=limit_bytes)
            chunks.append(chunk)
    except web.RequestPayloadError as error:
        raise BadRequest("The body's transfer or content encoding is broken.") from error
    return b"".join(chunks)


def parse_json(body: bytes) -> Any:
    """Bytes -> JSON value; NaN and Infinity are read, as other servers' clients send them. Raises InvalidJson."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidJson(str(error)[:200]) from None


def parse_large(body: bytes) -> Any:
    """As `parse_json`, in pieces: json's scanner lets no other thread run, so members of the outer objects are read one by one.

    Raises InvalidJson. Levels of objects taken apart: PIECES; what lies deeper is one piece.
    """
    try:
        text = body.decode(json.detect_encoding(body), "surrogatepass")
        value, end = _pieces(text, _blank(text, 0), PIECES)
        if _blank(text, end) != len(text):
            raise InvalidJson("Extra data")
    except (ValueError, RecursionError) as error:
        raise InvalidJson(str(error)[:200]) from None
    return value


def _blank(text: str, at: int) -> int:
    """The first place from `at` on that is no white space."""
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _pieces(text: str, at: int, levels: int) -> tuple[Any, int]:
    """The value at `at` and where it ends. Raises ValueError."""
    if levels == 0 or text[at : at + 1] != "{":
        return _DECODER.raw_decode(text, at)
    members: dict[str, Any] = {}
    at = _blank(text, at + 1)
    if text[at : at + 1] == "}":
        return members, at + 1
    while True:
        if text[at : at + 1] != '"':
            raise ValueError(f"A name in quotes is expected at {at}")
        name, at = _DECODER.raw_decode(text, at)
        at = _blank(text, at)
        if text[at : at + 1] != ":":
            raise ValueError(f"A colon is expected at {at}")
        members[name], at = _pieces(text, _blank(text, at + 1), levels - 1)
        at = _blank(text, at)
        if text[at : at + 1] == "}":
            return members, at + 1
        if text[at : at + 1] != ",":
            raise ValueError(f"A comma is expected at {at}")
        at = _blank(text, at + 1)


async def read_json(request: web.Request, limit_bytes: int | None = None, too_large: type[BodyTooLarge] = BodyTooLarge) -> Any:
    """The body as a JSON value. Raises InvalidJson, or what `read_body` raises."""
    body = await read_body(request, request.client_max_size if limit_bytes is None else limit_bytes, too_large)
    if len(body) > PARSE_ON_LOOP_BYTES:
        return await asyncio.to_thread(parse_large, body)
    return parse_json(body)


async def read_object(request: web.Request) -> dict[str, Any]:
    """The body as a JSON object. Raises InvalidJson, BodyInvalid for any other value, or what `read_body` raises."""
    return as_object(await read_json(request))


def as_object(value: Any) -> dict[str, Any]:
    """`value` when it is an object; BodyInvalid otherwise."""
    if not isinstance(value, dict):
        raise BodyInvalid("A JSON object is expected.", given=kind_of(value))
    return value


def kind_of(value: Any) -> str:
    """What JSON calls the type of `value`."""
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def ids_of(body: dict[str, Any], key: str) -> list[str]:
    """A list of ids under `key`, as strings; absent is empty. Raises BodyInvalid for anything but scalars in a list."""
    value = body.get(key, [])
    if not isinstance(value, list) or any(isinstance(item, (dict, list)) or item is None for item in value):
        raise BodyInvalid(f"{key} must be a list of ids.", field=key)
    return [str(item) for item in value]
