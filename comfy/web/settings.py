"""GET and POST /settings: one JSON object per user. Facts: http-api.md section 7."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from comfy import jsonio
from comfy.errors import BodyInvalid
from comfy.folders.atomic import make_folder, unwritable, write_replace
from comfy.web import users as web_users
from comfy.web.body import as_object, read_json
from comfy.web.errors import json_response

if TYPE_CHECKING:
    from server import PromptServer

log = logging.getLogger(__name__)

FILE_NAME = "comfy.settings.json"


def read(root: str) -> dict[str, Any]:
    """The settings kept in a user's folder; {} when there are none or the file is broken."""
    try:
        return _parse(os.path.join(root, FILE_NAME))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("settings of %s cannot be read: %s", os.path.basename(root), error)
        return {}


def merge(root: str, changes: Mapping[str, Any]) -> None:
    """Set the keys of `changes` and keep the others; one call at a time. Raises BodyInvalid, FileUnwritable.

    A broken file is kept beside the new one as `<name>.broken`.
    """
    path = os.path.join(root, FILE_NAME)
    make_folder(root, os.path.basename(root))
    try:
        settings = _parse(path)
    except FileNotFoundError:
        settings = {}
    except (OSError, ValueError):
        settings = {}
        _put_aside(path)
    try:
        text = json.dumps(jsonio.finite({**settings, **changes}), indent=4, allow_nan=False)
    except RecursionError:
        raise BodyInvalid("It is nested too deeply.") from None
    try:
        write_replace(path, text.encode(), durable=True)
    except OSError as error:
        raise unwritable(error, FILE_NAME) from error


def _parse(path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8") as file:
        try:
            settings = json.load(file)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
    if not isinstance(settings, dict):
        raise ValueError("not an object")
    return settings


def _put_aside(path: str) -> None:
    try:
        os.replace(path, path + ".broken")
        log.warning("%s was broken and is kept as %s.broken", path, FILE_NAME)
    except OSError as error:
        raise unwritable(error, FILE_NAME) from error


def routes(server: PromptServer) -> web.RouteTableDef:
    """`/settings` and `/settings/{id}`."""
    table = web.RouteTableDef()
    users = web_users.of(server)
    writing = asyncio.Lock()  # a merge reads, then writes

    def load(request: web.Request) -> dict[str, Any]:
        return read(users.root(users.id_of(request)))

    async def change(request: web.Request, changes: Mapping[str, Any]) -> web.Response:
        async with writing:
            await asyncio.to_thread(lambda: merge(users.root(users.id_of(request)), changes))
        return web.Response()

    @table.get("/settings")
    async def get_all(request: web.Request) -> web.Response:
        return json_response(await asyncio.to_thread(load, request))

    @table.get("/settings/{id}")
    async def get_one(request: web.Request) -> web.Response:
        return json_response((await asyncio.to_thread(load, request)).get(request.match_info["id"]))

    @table.post("/settings")
    async def set_many(request: web.Request) -> web.Response:
        return await change(request, as_object(await read_json(request)))

    @table.post("/settings/{id}")
    async def set_one(request: web.Request) -> web.Response:
        return await change(request, {request.match_info["id"]: await read_json(request)})

    return table
