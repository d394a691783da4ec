"""The front end: `/` and the files of the web root, for every GET that no other route takes (contract: http-api.md section 8)."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import mimetypes
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from comfy.config import Config
from comfy.web.info import FRONTEND_PACKAGE, FRONTEND_VERSION

if TYPE_CHECKING:
    from server import PromptServer

log = logging.getLogger(__name__)

DEFAULT_VERSION = "comfyanonymous/ComfyUI@latest"  #: of --front-end-version: whatever package is installed

#: named here because operating systems' tables lack or change them, and answers forbid browsers to guess
MEDIA_TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".css": "text/css",
    ".html": "text/html",
    ".json": "application/json",
    ".map": "application/json",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".ttf": "font/ttf",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
}

NO_FRONT_END = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Server is running</title></head><body>
<h1>The server is running, without a front end</h1>
<p>Install one and start the server again:</p>
<pre>pip install {FRONTEND_PACKAGE}=={FRONTEND_VERSION}</pre>
<p>or give a folder with an <code>index.html</code>: <code>--front-end-root DIR</code>.</p>
<p>The API works as it is: <a href="object_info">/object_info</a>, <a href="queue">/queue</a>,
<a href="system_stats">/system_stats</a>, <a href="history">/history</a>.</p>
</body></html>
"""


def find_web_root(config: Config) -> Path | None:
    """The folder to serve: --front-end-root, else the installed front-end package's `static`; None when there is neither."""
    if config.front_end_root is not None:
        return config.front_end_root
    version = getattr(config.args, "front_end_version", DEFAULT_VERSION)
    if version != DEFAULT_VERSION:
        log.warning("--front-end-version %s is not fetched: unpack it and give its folder as --front-end-root", version)
    spec = importlib.util.find_spec(FRONTEND_PACKAGE.replace("-", "_"))
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (Path(folder) / "static" / "index.html").is_file():
            return Path(folder) / "static"
    log.warning("no front end: pip install %s==%s, or --front-end-root DIR", FRONTEND_PACKAGE, FRONTEND_VERSION)
    return None


def locate(root: Path, relative: str) -> Path | None:
    """The file or folder at `relative` under `root`; None when it is absent or would lie outside, links followed."""
    parts = relative.split("/")
    if ".." in parts or "\0" in relative or "\\" in relative:
        return None
    try:
        base = root.resolve()
        path = base.joinpath(*(part for part in parts if part not in ("", "."))).resolve(strict=True)
        return path if path.is_relative_to(base) else None
    except (OSError, ValueError, RuntimeError):  # absent, no permission, name too long; a loop of links
        return None


def file_response(path: Path) -> web.FileResponse:
    """A file with its media type; ETag, Range and a sibling .gz or .br are the stack's work."""
    known = MEDIA_TYPES.get(path.suffix.lower()) or mimetypes.guess_type(path.name)[0]
    return web.FileResponse(path, headers={"Content-Type": known} if known else None)


def not_found() -> web.Response:
    """An unknown path."""
    return web.Response(status=404, content_type="application/octet-stream")


def routes(server: PromptServer) -> web.RouteTableDef:
    """`/`."""
    table = web.RouteTableDef()

    @table.get("/")
    async def index(request: web.Request) -> web.StreamResponse:
        if server.web_root is None:
            return web.Response(text=NO_FRONT_END, content_type="text/html")
        path = await asyncio.to_thread(locate, Path(server.web_root), "index.html")
        return not_found() if path is None else file_response(path)

    return table


def add_catch_all(server: PromptServer) -> None:
    """Serve the web root below every other route. To be called last."""

    async def serve(request: web.Request) -> web.StreamResponse:
        relative = request.match_info["path"]
        path = None if server.web_root is None else await asyncio.to_thread(locate, Path(server.web_root), relative)
        if path is None:
            await _refuse_wrong_method(request, catch_all)
            # browsers ask for it by themselves; the front end sets its icon later, and a 404 would show as an error
            return web.Response(status=204) if relative == "favicon.ico" else not_found()
        if await asyncio.to_thread(path.is_dir):
            return web.Response(status=403, text="403: Forbidden")
        return file_response(path)

    catch_all = server.app.router.add_resource("/{path:.*}")
    catch_all.add_route("GET", serve)
    catch_all.add_route("HEAD", serve)


async def _refuse_wrong_method(request: web.Request, catch_all: web.AbstractResource) -> None:
    """Raise 405 when the path is that of a route with other methods, such as GET on /interrupt."""
    allowed: set[str] = set()
    for resource in request.app.router.resources():
        if resource is not catch_all:
            allowed |= (await resource.resolve(request))[1]
    if allowed:
        raise web.HTTPMethodNotAllowed(request.method, allowed)
