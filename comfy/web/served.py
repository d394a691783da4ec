"""Answers that carry a file whose bytes a client or a workflow chose: never active in the browser, named safely."""

from __future__ import annotations

import os
import re
from urllib.parse import quote

from aiohttp import web

from comfy.folders import kinds

_SAFE_IN_QUOTES = re.compile(r'[^ -~]|["\\]')


def disposition(name: str, attachment: bool = False) -> str:
    """Content-Disposition for `name` (RFC 6266): quoted ASCII, and the exact name as RFC 8187 text where that differs."""
    kind = "attachment" if attachment else "inline"
    plain = _SAFE_IN_QUOTES.sub("_", name)
    if plain == name:
        return f'{kind}; filename="{name}"'
    exact = quote(os.fsencode(name), safe="")
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{exact}"


def file_headers(name: str, content_type: str | None = None) -> dict[str, str]:
    """Headers of a file called `name`: its type (or the one given), and what keeps scripts in it from running."""
    guessed, attachment = kinds.safe_type(name)
    return {
        "Content-Type": content_type or guessed,
        "Content-Disposition": disposition(name, attachment and content_type is None),
        "Content-Security-Policy": kinds.SANDBOX,
        "X-Content-Type-Options": "nosniff",
    }


def file_response(path: str, name: str | None = None) -> web.FileResponse:
    """The file at `path`, with ETag, Range and conditional requests."""
    return web.FileResponse(path, headers=file_headers(name or os.path.basename(path)))
