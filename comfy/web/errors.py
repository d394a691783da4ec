"""The one place where errors become HTTP answers.

Body of every error: {"error": {"type", "message", "details", "extra_info"}, "node_errors": {}}. `extra_info` holds the
facts of the error; no traceback and no path of the server goes to a client.
"""

from __future__ import annotations

import logging
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from comfy import jsonio
from comfy.errors import BodyTooLarge, ComfyError, PromptInvalid

log = logging.getLogger(__name__)

INTERNAL_ERROR = {
    "type": "internal_error",
    "message": "The server failed on this request.",
    "details": "Its log says why.",
    "extra_info": {},
}


def json_response(value: Any, status: int = 200) -> web.Response:
    """`value` as the contract's JSON: ASCII, default separators, no bare NaN."""
    return json_bytes(jsonio.dump_bytes(value), status)


def json_bytes(body: bytes, status: int = 200) -> web.Response:
    """JSON that is already encoded."""
    return web.Response(body=body, status=status, content_type="application/json", charset="utf-8")


def error_body(error: ComfyError) -> dict[str, Any]:
    """The answer's JSON value for an error that we raised on purpose."""
    if isinstance(error, PromptInvalid):
        return {"error": error.error, "node_errors": error.node_errors}
    facts = dict(error.facts)
    if error.field is not None:
        facts.setdefault("field", error.field)
    told = {"type": error.type, "message": error.message, "details": error.detail, "extra_info": facts}
    return {"error": told, "node_errors": {}}


def error_response(error: ComfyError) -> web.Response:
    """The answer for an error that we raised on purpose."""
    return json_response(error_body(error), status=error.http_status)


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Outermost middleware: exceptions of handlers -> JSON answers; an unknown one is logged and stays a 500."""
    try:
        return await handler(request)
    except ComfyError as error:
        if error.http_status >= 500:
            ours = error.http_status == 500  # others, such as 503, say what is the case, not that something broke
            log.error("%s %s: %s", request.method, request.path, error, exc_info=error if ours else None)
        return error_response(error)
    except web.HTTPRequestEntityTooLarge:
        return error_response(BodyTooLarge(limit_bytes=request.client_max_size))
    except (web.HTTPException, ConnectionError):
        raise  # an answer that aiohttp words; or a client that went away in mid-request
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return json_response({"error": INTERNAL_ERROR, "node_errors": {}}, status=500)
