"""/internal/*: console lines, folders and file names for the front end. Facts: http-api.md section 9."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

from aiohttp import web

from comfy.errors import BodyInvalid
from comfy.web import logbuffer
from comfy.web.body import read_object
from comfy.web.errors import json_response

if TYPE_CHECKING:
    from server import PromptServer


class LogSubscribers:
    """The websocket sessions that get `logs` events: new lines at every flush, to each of them and nobody else."""

    def __init__(self, server: PromptServer, buffer: logbuffer.LogBuffer) -> None:
        self._server = server
        self._buffer = buffer
        self._lock = threading.Lock()
        self._sids: set[str] = set()
        self._size: dict[str, int] | None = None

    def set(self, sid: str, enabled: bool) -> None:
        """Begin or end one session's subscription."""
        with self._lock:
            if enabled:
                if not self._sids:
                    self._buffer.take_unsent()  # lines from before anyone listened are fetched by /internal/logs/raw
                self._sids.add(sid)
            else:
                self._sids.discard(sid)

    def flush(self) -> None:
        """Send what is new; from any thread. A session that is no longer connected is forgotten."""
        with self._lock:
            self._sids &= set(self._server.sockets)
            sids = sorted(self._sids)
            entries = self._buffer.take_unsent() if sids else []
            if not entries:
                return
            size = logbuffer.terminal_size()
            told, self._size = (None if size == self._size else size), size
        for sid in sids:
            self._server.send_sync("logs", {"entries": entries, "size": told}, sid)


def newest_first(folder: str) -> list[str]:
    """Names of the files directly in `folder`, newest first; [] when it does not exist."""
    try:
        with os.scandir(folder) as entries:
            files = [(entry.stat().st_mtime_ns, entry.name) for entry in entries if _is_shown(entry)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [name for _, name in sorted(files, key=lambda file: (-file[0], file[1]))]


def _is_shown(entry: os.DirEntry[str]) -> bool:
    """Regular files; not links to nothing, not the lock of the temp folder and files that are being written."""
    return entry.is_file() and not entry.name.startswith((".lock", ".part-"))


def routes(server: PromptServer) -> web.RouteTableDef:
    """All routes of this module."""
    table = web.RouteTableDef()
    folders = server.folders
    buffer = logbuffer.current()
    subscribers = LogSubscribers(server, buffer)
    buffer.on_flush = subscribers.flush

    @table.get("/internal/logs")
    async def logs(request: web.Request) -> web.Response:
        return json_response("".join(f"{entry['t']} - {entry['m']}" for entry in buffer.entries()))

    @table.get("/internal/logs/raw")
    async def raw_logs(request: web.Request) -> web.Response:
        return json_response({"entries": buffer.entries(), "size": logbuffer.terminal_size()})

    @table.patch("/internal/logs/subscribe")
    async def subscribe(request: web.Request) -> web.Response:
        body: dict[str, Any] = await read_object(request)
        sid, enabled = body.get("clientId"), body.get("enabled")
        if not isinstance(sid, str):
            raise BodyInvalid("clientId must be text.", field="clientId")
        if not isinstance(enabled, bool):
            raise BodyInvalid("enabled must be true or false.", field="enabled")
        subscribers.set(sid, enabled)
        return web.Response()

    @table.get("/internal/folder_paths")
    async def folder_paths(request: web.Request) -> web.Response:
        return json_response({kind: folders.models.folders(kind) for kind in list(folders.names)})

    @table.get("/internal/files/{directory_type}")
    async def files(request: web.Request) -> web.Response:
        folder = folders.by_type(request.match_info["directory_type"])
        if folder is None:  # the contract's form: `error` is plain text
            return json_response({"error": "The type must be input, output or temp."}, status=400)
        return json_response(await asyncio.to_thread(newest_first, folder))

    return table
