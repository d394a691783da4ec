"""GET /view: a picture or any other file of the input, output or temp folder. Facts: http-api.md section 6."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from aiohttp import web
from PIL import Image

from comfy.errors import FileMissing, FileNameInvalid, ImageUnreadable, InputUnusable
from comfy.folders import Folders
from comfy.folders.confine import check_name, confine
from comfy.images_io import encode, open_picture
from comfy.web.served import file_headers, file_response

if TYPE_CHECKING:
    from server import PromptServer

DEFAULT_QUALITY = 90


def resolve(folders: Folders, query: Mapping[str, str]) -> str:
    """The absolute path that the parameters filename, type and subfolder name.

    Raises FileMissing, FileNameInvalid (an absolute name or one with `..`), BadRequest for another type, PathOutside for a
    subfolder or a link that leaves the folder.
    """
    if "filename" not in query:
        raise FileMissing("No filename is given.", field="filename")
    name, folder = folders.annotated(check_name(query["filename"]))
    if not name or name.startswith(("/", "\\")) or ".." in name:
        raise FileNameInvalid("It must be the name of a file in the folder.", field="filename")
    if folder is None:
        folder = folders.by_type_or_raise(query.get("type", "output"))
    path = confine(confine(folder, query.get("subfolder", ""), field="subfolder"), name)
    confine(folder, os.path.relpath(path, os.path.abspath(folder)))  # a link inside the subfolder may still leave the folder
    if not os.path.isfile(path):
        raise FileMissing(filename=query["filename"])
    return path


def render(path: str, query: Mapping[str, str]) -> tuple[bytes, str]:
    """What `preview` or `channel` asks for -> (bytes, content type). Raises ImageUnreadable when the file is no picture."""
    channel = query.get("channel", "")
    with open_picture(path, os.path.basename(path)) as opened:
        try:
            opened.load()
            image = opened.convert("RGBA" if has_alpha(opened) else "RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ImageUnreadable(filename=os.path.basename(path)) from error
    try:
        if "preview" in query:
            return _preview(image, query["preview"], channel)
        return encode(image.convert("RGB") if channel == "rgb" else _alpha_only(image), "PNG"), "image/png"
    except InputUnusable as error:
        raise ImageUnreadable(error.detail, filename=os.path.basename(path)) from error


def has_alpha(image: Image.Image) -> bool:
    """Whether the picture has an alpha channel or a transparent palette entry."""
    return "A" in image.getbands() or "transparency" in image.info


def _preview(image: Image.Image, wanted: str, channel: str) -> tuple[bytes, str]:
    kind, _, quality = wanted.partition(";")
    if kind != "jpeg" or "a" in channel:
        kind = "webp"
    if kind == "jpeg" or channel == "rgb":
        image = image.convert("RGB")
    number = re.fullmatch(r"[0-9]{1,4}", quality.strip())
    level = min(max(int(number[0]), 1), 100) if number else DEFAULT_QUALITY
    return encode(image, kind.upper(), quality=level), f"image/{kind}"


def _alpha_only(image: Image.Image) -> Image.Image:
    alpha = image.getchannel("A") if image.mode == "RGBA" else Image.new("L", image.size, 255)
    black = Image.new("L", image.size, 0)
    return Image.merge("RGBA", (black, black, black, alpha))


def routes(server: PromptServer) -> web.RouteTableDef:
    """`/view`."""
    table = web.RouteTableDef()

    @table.get("/view")
    async def view(request: web.Request) -> web.StreamResponse:
        path = await asyncio.to_thread(resolve, server.folders, request.query)
        if "preview" in request.query or request.query.get("channel") in ("rgb", "a"):
            body, kind = await asyncio.to_thread(render, path, request.query)
            return web.Response(body=body, headers=file_headers(os.path.basename(path), kind))
        return file_response(path)

    return table
