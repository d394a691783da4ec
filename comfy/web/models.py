"""/models, /experiment/models, /view_metadata, /embeddings: which model files there are. Facts: http-api.md section 5."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import json
import os
from typing import TYPE_CHECKING, Any

from aiohttp import web
from PIL import Image

from comfy.errors import ComfyError, FileMissing, FolderUnknown, WeightFileInvalid
from comfy.folders import Folders
from comfy.folders.confine import check_relative
from comfy.folders.kinds import content_class
from comfy.folders.models import by_suffix, walk
from comfy.folders.tables import WEIGHT_SUFFIXES
from comfy.images_io import encode, open_picture
from comfy.units import MIB
from comfy.web.errors import json_response

if TYPE_CHECKING:
    from server import PromptServer

MAX_METADATA_BYTES = MIB  #: longer headers are not shown
NOT_MODELS = ("configs", "custom_nodes")
COVERS = "ssmd_cover_images"  #: metadata key: a JSON list of base64 pictures


def kind_of(folders: Folders, kind: str) -> str:
    """`kind` itself when it is a key; the legacy names are none here. Raises FolderUnknown."""
    if kind not in folders.names:
        raise FolderUnknown(folder=kind)
    return kind


def read_metadata(path: str) -> dict[str, Any] | None:
    """The `__metadata__` of a safetensors file; None when it has none or its header is over 1 MiB.

    Raises FileMissing, WeightFileInvalid.
    """
    name = os.path.basename(path)
    try:
        with open(path, "rb") as file:
            head = file.read(8)
            length = int.from_bytes(head, "little")
            if len(head) < 8:
                raise ValueError("too short")
            if length > MAX_METADATA_BYTES:
                return None
            header = json.loads(file.read(length))
    except FileNotFoundError:
        raise FileMissing(filename=name) from None
    except (OSError, ValueError, RecursionError) as error:
        raise WeightFileInvalid("Its header cannot be read.", file=name) from error
    found = header.get("__metadata__") if isinstance(header, dict) else None
    return found if isinstance(found, dict) else None


def metadata_of(folders: Folders, kind: str, name: str) -> dict[str, Any]:
    """What GET /view_metadata shows. Raises FolderUnknown, FileMissing, WeightFileInvalid."""
    folders.models.pair(kind)
    path = folders.full_path(kind, name) if name.endswith(".safetensors") else None
    found = None if path is None else read_metadata(path)
    if found is None:
        raise FileMissing("There is no such file, or it has no metadata.", folder=kind, filename=name)
    return found


def detailed(folders: Folders, kind: str) -> list[dict[str, Any]]:
    """The files of `kind` with folder index, times and size; hidden ones are left out."""
    found = []
    for index, folder in enumerate(folders.models.folders(kind)):
        for files, _, _ in walk(folder, hidden=False):
            for name in by_suffix(files, WEIGHT_SUFFIXES):
                try:
                    status = os.stat(os.path.join(folder, name))
                except OSError:  # a link to nothing, or removed at this moment
                    continue
                found.append(
                    {
                        "name": name.replace(os.sep, "/"),
                        "pathIndex": index,
                        "modified": status.st_mtime,
                        "created": status.st_ctime,
                        "size": status.st_size,
                    }
                )
    return found


def preview(folders: Folders, kind: str, index: str, name: str) -> bytes:
    """The first preview picture of a model file as WebP. Raises FolderUnknown, FileMissing, PathOutside, FileNameInvalid.

    Looked for: `<stem>.<image>` and `<stem>.preview.<image>` beside the file, then the covers in its metadata. The folder
    is confined by name; links in it are followed, as for the models themselves.
    """
    paths = folders.models.folders(kind_of(folders, kind))
    if not (index.isascii() and index.isdigit() and int(index) < len(paths)):
        raise FileMissing("There is no folder of this index.", folder=kind, index=index)
    root = os.path.abspath(paths[int(index)])
    path = os.path.normpath(os.path.join(root, check_relative(name)))
    if not path.startswith(root + os.sep):
        raise FileMissing(filename=name)
    sources: list[str | io.BytesIO] = [*_siblings(path), *_covers(path)]
    for source in sources:
        try:
            with open_picture(source, os.path.basename(path)) as opened:
                return encode(opened.convert("RGBA" if "A" in opened.getbands() or "transparency" in opened.info else "RGB"), "WEBP")
        except (ComfyError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
    raise FileMissing("The model has no preview that can be read.", filename=name)


def _siblings(path: str) -> list[str]:
    """Pictures named after the model, in name order."""
    folder, file_name = os.path.split(path)
    stem = os.path.splitext(file_name)[0]
    try:
        beside = sorted(os.listdir(folder))
    except OSError:
        return []
    names = (name for name in beside if os.path.splitext(name)[0] in (stem, stem + ".preview") and content_class(name) == "image")
    return [os.path.join(folder, name) for name in names]


def _covers(path: str) -> list[io.BytesIO]:
    """Pictures inside the model's metadata."""
    if not path.endswith(".safetensors"):
        return []
    try:
        covers = json.loads((read_metadata(path) or {}).get(COVERS) or "[]")
        texts = [text.rpartition(",")[2] for text in covers if isinstance(text, str)] if isinstance(covers, list) else []
        return [io.BytesIO(base64.b64decode(text)) for text in texts]
    except (FileMissing, WeightFileInvalid, ValueError, TypeError, RecursionError, binascii.Error):
        return []


def routes(server: PromptServer) -> web.RouteTableDef:
    """All routes of this module."""
    table = web.RouteTableDef()
    folders = server.folders

    @table.get("/embeddings")
    async def embeddings(request: web.Request) -> web.Response:
        names = await asyncio.to_thread(folders.filename_list, "embeddings")
        return json_response([os.path.splitext(name)[0] for name in names])

    @table.get("/models")
    async def kinds(request: web.Request) -> web.Response:
        return json_response(list(folders.names))

    @table.get("/models/{folder}")
    async def files(request: web.Request) -> web.Response:
        kind = kind_of(folders, request.match_info["folder"])
        return json_response(await asyncio.to_thread(folders.filename_list, kind))

    @table.get("/view_metadata/{folder_name}")
    async def metadata(request: web.Request) -> web.Response:
        kind, name = request.match_info["folder_name"], request.query.get("filename", "")
        return json_response(await asyncio.to_thread(metadata_of, folders, kind, name))

    @table.get("/experiment/models")
    async def detailed_kinds(request: web.Request) -> web.Response:
        names = [kind for kind in folders.names if kind not in NOT_MODELS]
        return json_response([{"name": kind, "folders": folders.models.folders(kind)} for kind in names])

    @table.get("/experiment/models/{folder}")
    async def detailed_files(request: web.Request) -> web.Response:
        return json_response(await asyncio.to_thread(detailed, folders, kind_of(folders, request.match_info["folder"])))

    @table.get("/experiment/models/preview/{folder}/{path_index}/{filename:.*}")
    async def model_preview(request: web.Request) -> web.Response:
        asked = request.match_info
        body = await asyncio.to_thread(preview, folders, asked["folder"], asked["path_index"], asked["filename"])
        return web.Response(body=body, content_type="image/webp")

    return table
