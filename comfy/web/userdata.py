"""/userdata and /v2/userdata: the files of a user. Facts: http-api.md section 7, whose marked defects are mended here."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from aiohttp import web

from comfy.errors import BadRequest, FileMissing, FileNameInvalid, FileTaken, NotAFile, PathOutside, UserForbidden
from comfy.folders.atomic import PART_PREFIX, make_folder, unwritable, write_new, write_replace
from comfy.folders.confine import confine
from comfy.web import users as web_users
from comfy.web.body import read_body
from comfy.web.errors import json_response
from comfy.web.served import file_headers

if TYPE_CHECKING:
    from server import PromptServer

#: user.css is the one file that the front end loads as something active
_STYLES = "text/css"

#: what the front end asks for before it has written it. A new user has them, empty: else each start shows errors in the
#: browser's console, which hide real ones
NEW_FOLDERS = ("workflows", "subgraphs")
NEW_FILES: dict[str, Any] = {"comfy.templates.json": []}


def path_of(root: str, name: str) -> str:
    """Absolute path of a file named by a route segment, which may be percent-encoded once more. Raises as `confine`;
    NotAFile for the folder itself.
    """
    path = confine(root, unquote(name), field="file")
    if path == os.path.abspath(root):
        raise NotAFile(field="file")
    return path


def relative(root: str, path: str) -> str:
    """`path` below `root`, with slashes."""
    return os.path.relpath(path, os.path.abspath(root)).replace(os.sep, "/")


def info(root: str, path: str) -> dict[str, Any]:
    """What `full_info` shows of a file: times in seconds, `created` is the time of the last change of the inode."""
    status = os.stat(path)
    return {"path": relative(root, path), "size": status.st_size, "modified": status.st_mtime, "created": status.st_ctime}


def entries(folder: str, recurse: bool, hidden: bool) -> Iterator[os.DirEntry[str]]:
    """Files and folders below `folder`; links to folders are not entered, links out of it not shown."""
    root = os.path.realpath(folder)
    stack = [folder]
    while stack:
        with os.scandir(stack.pop()) as found:
            below = sorted(found, key=lambda entry: entry.name)
        for entry in below:
            if entry.name.startswith(PART_PREFIX if hidden else "."):
                continue
            if entry.is_symlink() and not os.path.realpath(entry.path).startswith(root + os.sep):
                continue
            yield entry
            if recurse and entry.is_dir(follow_symlinks=False):
                stack.append(entry.path)


def listing(root: str, directory: str, recurse: bool, full_info: bool, split: bool) -> list[Any]:
    """The files of `directory`, as GET /userdata shows them. Raises BadRequest, PathOutside, FileMissing."""
    if not directory:
        raise BadRequest("A directory is needed.", field="dir")
    folder = confine(root, directory, field="dir")
    if not os.path.isdir(folder):
        if relative(root, folder) in NEW_FOLDERS and not os.path.lexists(folder):
            return []
        raise FileMissing(filename=directory)
    files = sorted(
        (entry.path for entry in entries(folder, recurse, hidden=False) if entry.is_file()), key=lambda path: relative(folder, path)
    )
    if full_info:
        return [info(folder, path) for path in files]
    names = [relative(folder, path) for path in files]
    return [[name, *name.split("/")] for name in names] if split else names


def tree(root: str, directory: str) -> list[dict[str, Any]]:
    """Everything below `directory`, as GET /v2/userdata shows it. Raises FileNameInvalid, FileMissing."""
    try:
        folder = confine(root, unquote(directory), field="path")
    except PathOutside as error:  # the contract answers 400 here
        raise FileNameInvalid("It leads out of the user's folder.", field="path") from error
    if not os.path.exists(folder):
        if folder == os.path.abspath(root):
            return []
        raise FileMissing(filename=directory)
    if not os.path.isdir(folder):
        raise FileNameInvalid("It is not a folder.", field="path")
    found = []
    for entry in entries(folder, recurse=True, hidden=True):
        item: dict[str, Any] = {"name": entry.name, "path": relative(root, entry.path), "type": "directory" if entry.is_dir() else "file"}
        if item["type"] == "file":
            status = entry.stat()
            item |= {"size": status.st_size, "modified": status.st_mtime}
        found.append(item)
    return sorted(found, key=lambda item: (item["type"] != "directory", item["name"].lower()))


def existing(root: str, name: str) -> str:
    """Path of a user's file. Raises FileMissing, NotAFile, and what `path_of` raises."""
    path = path_of(root, name)
    if os.path.isdir(path):
        raise NotAFile(field="file")
    if not os.path.isfile(path):
        raise FileMissing(filename=name)
    return path


def store(root: str, name: str, data: bytes, overwrite: bool) -> str:
    """Write a user's file, whole or not at all; its path. Raises FileTaken, FileNameInvalid, FileUnwritable, PathOutside."""
    path = path_of(root, name)
    if os.path.isdir(path):
        raise FileNameInvalid("It names a folder.", field="file")
    make_folder(os.path.dirname(path), name)
    try:
        if overwrite:
            write_replace(path, data, durable=True)
        else:
            write_new(path, data)
    except FileExistsError:
        raise FileTaken(filename=name) from None
    except OSError as error:
        raise unwritable(error, name) from error
    return path


def remove(root: str, name: str) -> None:
    """Delete a user's file. Raises as `existing`, FileUnwritable."""
    path = existing(root, name)
    try:
        os.unlink(path)
    except FileNotFoundError:
        raise FileMissing(filename=name) from None
    except OSError as error:
        raise unwritable(error, name) from error


def move(root: str, source: str, target: str, overwrite: bool) -> str:
    """Rename a user's file; the new path. Raises FileMissing, FileTaken, PathOutside, FileNameInvalid, FileUnwritable."""
    start, end = existing(root, source), path_of(root, target)
    if os.path.isdir(end):
        raise FileNameInvalid("It names a folder.", field="dest")
    if start == end:
        return end
    make_folder(os.path.dirname(end), target)
    try:
        if overwrite:
            os.replace(start, end)
        else:
            _rename_new(start, end)
    except FileExistsError:
        raise FileTaken(filename=target) from None
    except OSError as error:
        raise unwritable(error, target) from error
    return end


def _rename_new(start: str, end: str) -> None:
    """Rename; FileExistsError when `end` exists, also when it appears at this moment."""
    try:
        os.link(start, end)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        os.close(os.open(end, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.replace(start, end)
    else:
        os.unlink(start)


def routes(server: PromptServer) -> web.RouteTableDef:
    """`/userdata…` and `/v2/userdata`."""
    table = web.RouteTableDef()
    users = web_users.of(server)

    def root_of(request: web.Request) -> str:
        return users.root(users.id_of(request, UserForbidden))

    def answer(request: web.Request, root: str, path: str) -> web.Response:
        return json_response(info(root, path) if _is(request, "full_info", "true") else relative(root, path))

    @table.get("/userdata")
    async def list_files(request: web.Request) -> web.Response:
        asked = {flag: request.query.get(flag, "").lower() == "true" for flag in ("recurse", "full_info", "split")}
        return json_response(await asyncio.to_thread(lambda: listing(root_of(request), request.query.get("dir", ""), **asked)))

    @table.get("/v2/userdata")
    async def list_tree(request: web.Request) -> web.Response:
        return json_response(await asyncio.to_thread(lambda: tree(root_of(request), request.query.get("path", ""))))

    @table.get("/userdata/{file}")
    async def get_file(request: web.Request) -> web.StreamResponse:
        root, asked = await asyncio.to_thread(root_of, request), request.match_info["file"]
        try:
            path = await asyncio.to_thread(existing, root, asked)
        except FileMissing:
            if asked not in NEW_FILES:
                raise
            return json_response(NEW_FILES[asked])
        name = os.path.basename(path)
        return web.FileResponse(path, headers=file_headers(name, _STYLES if name.lower().endswith(".css") else None))

    @table.post("/userdata/{file}")
    async def post_file(request: web.Request) -> web.Response:
        name, overwrite = request.match_info["file"], not _is(request, "overwrite", "false")
        root = await asyncio.to_thread(root_of, request)
        path_of(root, name)  # a bad name is told before the body is read
        data = await read_body(request, request.client_max_size)

        def work() -> web.Response:
            return answer(request, root, store(root, name, data, overwrite))

        return await asyncio.to_thread(work)

    @table.delete("/userdata/{file}")
    async def delete_file(request: web.Request) -> web.Response:
        await asyncio.to_thread(lambda: remove(root_of(request), request.match_info["file"]))
        return web.Response(status=204)

    @table.post("/userdata/{file}/move/{dest}")
    async def move_file(request: web.Request) -> web.Response:
        overwrite = not _is(request, "overwrite", "false")

        def work() -> web.Response:
            root = root_of(request)
            return answer(request, root, move(root, request.match_info["file"], request.match_info["dest"], overwrite))

        return await asyncio.to_thread(work)

    return table


def _is(request: web.Request, flag: str, value: str) -> bool:
    return request.query.get(flag, "").lower() == value
