"""Who asks, and where that user's files are. GET and POST /users. Facts: http-api.md sections 1.5 and 7.

There is no password in this protocol: an id only keeps people's files apart. Single-user servers know `default` alone and
ignore the header; multi-user ones know `default` and whom users.json lists.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import uuid
from typing import TYPE_CHECKING

from aiohttp import web

from comfy.config import Config
from comfy.errors import ComfyError, FileUnwritable, SingleUser, UserNameUnusable, UserUnknown
from comfy.folders import Folders
from comfy.folders.atomic import make_folder, unwritable, write_replace
from comfy.folders.confine import confine
from comfy.web.body import read_json
from comfy.web.errors import json_response

if TYPE_CHECKING:
    from server import PromptServer

log = logging.getLogger(__name__)

DEFAULT_USER = "default"
HEADER = "comfy-user"
MAX_NAME = 200  #: bytes; the id of a user is a folder name, and 37 bytes longer


class Users:
    """The users of one server; packs know it as `PromptServer.instance.user_manager`. Every method reads the disk."""

    def __init__(self, config: Config, folders: Folders) -> None:
        self.config = config
        self.folders = folders

    def names(self) -> dict[str, str]:
        """Id -> name as users.json lists them; {} when it is absent or unreadable."""
        try:
            return self._read()
        except (OSError, ValueError) as error:
            log.warning("users.json cannot be read: %s", error)
            return {}

    def id_of(self, request: web.Request, unknown: type[UserUnknown] = UserUnknown) -> str:
        """The id that the request is made under. Raises `unknown` on a multi-user server that does not know it."""
        if not self.config.multi_user:
            return DEFAULT_USER
        user = request.headers.get(HEADER, DEFAULT_USER)
        if user != DEFAULT_USER and (user not in self.names() or os.path.basename(user) != user or user.startswith(".")):
            raise unknown(user=user)
        return user

    def root(self, user: str) -> str:
        """Absolute folder of a known user's files; it need not exist."""
        return confine(self.folders.user_dir, user, field="user")

    def add(self, name: object) -> str:
        """Register a user; the new id. Raises UserNameUnusable, SingleUser, FileUnwritable. One call at a time."""
        if not self.config.multi_user:
            raise SingleUser()
        if not isinstance(name, str) or not name.strip():
            raise UserNameUnusable("A name is needed.", field="username")
        name = name.strip()
        if len(name.encode("utf-8", "replace")) > MAX_NAME:
            raise UserNameUnusable("The name is too long.", field="username", limit=MAX_NAME)
        try:
            users = self._read()
        except (OSError, ValueError) as error:
            raise FileUnwritable("users.json cannot be read, and is not overwritten.", filename="users.json") from error
        if name in users.values():
            raise UserNameUnusable("The name is taken.", field="username")
        user = f"{re.sub('[^a-zA-Z0-9-_]+', '-', name)}_{uuid.uuid4()}"
        users[user] = name
        make_folder(self.folders.user_dir, "users.json")
        try:
            write_replace(self._path(), json.dumps(users).encode(), durable=True)
        except OSError as error:
            raise unwritable(error, "users.json") from error
        return user

    def _path(self) -> str:
        return os.path.join(self.folders.user_dir, "users.json")

    def _read(self) -> dict[str, str]:
        try:
            with open(self._path(), encoding="utf-8") as file:
                users = json.load(file)
        except FileNotFoundError:
            return {}
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        if not isinstance(users, dict):
            raise ValueError("not an object")
        return {str(user): str(name) for user, name in users.items()}

    # names that packs call

    def get_request_user_id(self, request: web.Request) -> str:
        """As `id_of`."""
        return self.id_of(request)

    def get_request_user_filepath(
        self, request: web.Request, file: str | None, type: str = "userdata", create_dir: bool = True
    ) -> str | None:
        """Absolute path of a user's file, or of the user's folder without `file`; None when it would lie outside."""
        if type != "userdata":
            raise KeyError(f"Unknown filepath type: {type}")
        try:
            path = confine(self.root(self.id_of(request)), file or "")
        except ComfyError as error:
            if isinstance(error, UserUnknown):
                raise
            return None
        if create_dir:
            make_folder(os.path.dirname(path) if file else path, file or "")
        return path


def of(server: PromptServer) -> Users:
    """The server's users, made on first use."""
    if not isinstance(server.user_manager, Users):
        server.user_manager = Users(server.config, server.folders)
    return server.user_manager


def refusal(error: ComfyError) -> web.Response:
    """The answer that the front end shows on its user page: `error` is plain text there."""
    return json_response({"error": f"{error.message} {error.detail}".strip(), "type": error.type}, status=error.http_status)


def routes(server: PromptServer) -> web.RouteTableDef:
    """`/users`."""
    table = web.RouteTableDef()
    users = of(server)
    adding = asyncio.Lock()

    @table.get("/users")
    async def list_users(request: web.Request) -> web.Response:
        if server.config.multi_user:
            return json_response({"storage": "server", "users": await asyncio.to_thread(users.names)})
        migrated = await asyncio.to_thread(os.path.exists, users.root(DEFAULT_USER))
        return json_response({"storage": "server", "migrated": migrated})

    @table.post("/users")
    async def add_user(request: web.Request) -> web.Response:
        body = await read_json(request)
        name = body.get("username") if isinstance(body, dict) else None
        try:
            async with adding:
                user = await asyncio.to_thread(users.add, name)
        except (UserNameUnusable, SingleUser) as error:
            return refusal(error)
        return json_response(user)

    return table
