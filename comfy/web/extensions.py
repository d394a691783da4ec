"""/extensions, /workflow_templates, /i18n, /templates, /docs: what packs and packages add to the front end.

Facts: http-api.md section 8. The files here come with installed code, so they keep their types and may run.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from aiohttp import web

from comfy.errors import ComfyError
from comfy.folders import packs
from comfy.folders.confine import confine
from comfy.folders.models import walk
from comfy.web.errors import json_response
from comfy.web.frontend import file_response, locate, not_found

if TYPE_CHECKING:
    from server import PromptServer

log = logging.getLogger(__name__)

TEMPLATES = ("comfyui_workflow_templates", "templates")
DOCS = ("comfyui_embedded_docs", "docs")
OWN = {"server": str(Path(__file__).parent / "scripts")}  #: our own scripts for the front end, listed like a pack's


def package_folder(package: str, folder: str) -> Path | None:
    """A folder inside an installed package, which is not imported; None when package or folder are absent."""
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (Path(place) / folder).is_dir():
            return Path(place) / folder
    return None


def toml_web_dir(folder: str) -> tuple[str, str] | None:
    """(mount name, folder) that a pack's pyproject.toml names: `[tool.comfy] web`, mounted under `[project] name`.

    None without one, and when it is broken, absent or outside the pack, which is logged.
    """
    path = os.path.join(folder, "pyproject.toml")
    if not os.path.isfile(path):
        return None
    try:
        project = _read_toml(path)
        named, mount = project.get("tool", {}).get("comfy", {}).get("web"), project.get("project", {}).get("name")
        if not isinstance(named, str) or not named or not isinstance(mount, str) or not mount:
            return None
        web = confine(folder, named)
    except (OSError, ValueError, AttributeError, ImportError, RecursionError, ComfyError) as error:
        log.warning("%s is passed over: %s", path, error)
        return None
    return (mount, web) if os.path.isdir(web) else None


def _read_toml(path: str) -> dict[str, Any]:
    try:
        import tomllib
    except ImportError:
        try:
            import tomli as tomllib  # type: ignore[import-not-found,no-redef]
        except ImportError as error:
            raise ImportError("on Python 3.10 reading it needs the package tomli") from error
    with open(path, "rb") as file:
        return tomllib.load(file)


def scripts(web_root: str | None, web_dirs: dict[str, str]) -> list[str]:
    """URL paths of the scripts that the front end loads: its own, then those of every pack."""
    found = []
    if web_root is not None:
        found += [f"/extensions/{name}" for name in _scripts_in(os.path.join(web_root, "extensions"))]
    for pack, folder in list(web_dirs.items()):
        found += [f"/extensions/{quote(pack, safe='')}/{name}" for name in _scripts_in(folder)]
    return found


def _scripts_in(folder: str) -> list[str]:
    return sorted(name.replace(os.sep, "/") for files, _, _ in walk(folder) for name in files if name.endswith(".js"))


async def serve_below(root: str | Path | None, relative: str) -> web.StreamResponse:
    """A file below `root` as the web root is served: absent or outside 404, a folder 403."""
    path = None if root is None else await asyncio.to_thread(locate, Path(root), relative)
    if path is None:
        return not_found()
    if await asyncio.to_thread(path.is_dir):
        return web.Response(status=403, text="403: Forbidden")
    return file_response(path)


def routes(server: PromptServer) -> web.RouteTableDef:
    """All routes of this module."""
    table = web.RouteTableDef()
    folders = server.folders
    templates, docs = package_folder(*TEMPLATES), package_folder(*DOCS)
    translated: dict[str, Any] | None = None

    def web_dirs() -> dict[str, str]:
        return {**OWN, **folders.web_dirs}  # looked at each time: a pack may add its folder late

    def pack_parents() -> list[str]:
        return folders.models.folders("custom_nodes")

    @table.get("/extensions")
    async def list_scripts(request: web.Request) -> web.Response:
        return json_response(await asyncio.to_thread(scripts, server.web_root, web_dirs()))

    @table.get("/extensions/{pack}/{path:.+}")
    async def pack_file(request: web.Request) -> web.StreamResponse:
        pack, relative = request.match_info["pack"], request.match_info["path"]
        if pack in web_dirs():
            return await serve_below(web_dirs()[pack], relative)
        return await serve_below(server.web_root, f"extensions/{pack}/{relative}")

    @table.get("/workflow_templates")
    async def list_templates(request: web.Request) -> web.Response:
        return json_response(await asyncio.to_thread(packs.workflow_templates, pack_parents()))

    @table.get("/api/workflow_templates/{pack}/{path:.+}")
    async def template(request: web.Request) -> web.StreamResponse:
        pack, name = request.match_info["pack"], request.match_info["path"]
        path = await asyncio.to_thread(packs.template_file, pack_parents(), pack, name)
        return not_found() if path is None else file_response(Path(path))

    @table.get("/i18n")
    async def i18n(request: web.Request) -> web.Response:
        nonlocal translated
        if translated is None:  # packs do not change while the server runs
            translated = await asyncio.to_thread(packs.translations, pack_parents())
        return json_response(translated)

    @table.get("/templates/{path:.*}")
    async def core_template(request: web.Request) -> web.StreamResponse:
        if templates is None and request.match_info["path"] == "index.json":
            return json_response([])  # the front end's template page takes an empty list, and breaks on a 404
        return await serve_below(templates, request.match_info["path"])

    @table.get("/docs/{path:.*}")
    async def node_docs(request: web.Request) -> web.StreamResponse:
        return await serve_below(docs, request.match_info["path"])

    return table
