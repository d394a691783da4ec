"""Finished jobs (contract: http-api.md section 4)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aiohttp import web

from comfy.errors import QueryInvalid
from comfy.web.body import ids_of, read_object
from comfy.web.errors import json_bytes

if TYPE_CHECKING:
    from server import PromptServer

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)


def whole_number(request: web.Request, name: str) -> int | None:
    """A query parameter as a whole number, None when absent. Raises QueryInvalid for anything else."""
    text = request.query.get(name)
    if text is None:
        return None
    if not _WHOLE.fullmatch(text.strip()):
        raise QueryInvalid(f"{name} must be a whole number.", field=name, given=text[:80])
    return int(text)


def routes(server: PromptServer) -> web.RouteTableDef:
    """`/history`, `/history/{prompt_id}`."""
    table = web.RouteTableDef()

    @table.get("/history")
    async def get_history(request: web.Request) -> web.Response:
        max_items, offset = whole_number(request, "max_items"), whole_number(request, "offset")
        return json_bytes(server.scheduler.history.get(max_items, offset))

    @table.get("/history/{prompt_id}")
    async def get_one(request: web.Request) -> web.Response:
        return json_bytes(server.scheduler.history.one(request.match_info["prompt_id"]))

    @table.post("/history")
    async def post_history(request: web.Request) -> web.Response:
        body = await read_object(request)
        ids = ids_of(body, "delete")
        if body.get("clear"):
            server.scheduler.history.clear()
        if ids:
            server.scheduler.history.delete(ids)
        return web.Response()

    return table
