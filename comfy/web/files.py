"""POST /upload/image and /upload/mask. Facts: http-api.md section 6, whose marked defects are mended here."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from aiohttp import web
from multidict import MultiMapping
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from comfy.errors import BadRequest, FileNameInvalid, FileTaken, ImageUnreadable, PathOutside
from comfy.folders import Folders
from comfy.folders.atomic import make_folder, unwritable, write_new, write_replace
from comfy.folders.confine import confine
from comfy.images_io import encode, open_picture
from comfy.web.errors import json_response
from comfy.web.view import has_alpha, resolve

if TYPE_CHECKING:
    from server import PromptServer

MAX_COPIES = 10_000  #: numbered names tried for files of one name


@dataclass(frozen=True)
class Upload:
    """One uploaded file and where its sender wants it. `subfolder` and `kind` are echoed as sent."""

    name: str
    content: IO[bytes]
    kind: str
    subfolder: str
    overwrite: bool


async def read_form(request: web.Request) -> MultiMapping[Any]:
    """The multipart form. Raises BadRequest for any other body."""
    if request.content_type != "multipart/form-data":
        raise BadRequest("A multipart/form-data body is expected.")
    try:
        return await request.post()
    except (ValueError, AssertionError, KeyError, LookupError, web.RequestPayloadError) as error:
        raise BadRequest("The multipart body cannot be read.") from error


def upload_of(form: MultiMapping[Any]) -> Upload:
    """The form's fields. Raises BadRequest when there is no file, FileNameInvalid when it has no name."""
    part = form.get("image")
    if not isinstance(part, web.FileField):
        raise BadRequest("The field must be a file with a name.", field="image")
    if not part.filename:
        raise FileNameInvalid("The file has no name.", field="image")
    return Upload(
        name=part.filename,
        content=part.file,
        kind=_text(form, "type", "input"),
        subfolder=_text(form, "subfolder", ""),
        overwrite=form.get("overwrite") in ("true", "1"),
    )


def _text(form: MultiMapping[Any], field: str, default: str) -> str:
    value = form.get(field, default)
    if not isinstance(value, str):
        raise BadRequest("The field must be text.", field=field)
    return value


def place_of(folders: Folders, upload: Upload) -> str:
    """Absolute path for the upload; creates its folder. Raises BadRequest, FileNameInvalid (outside included), FileUnwritable."""
    root = folders.by_type_or_raise(upload.kind)
    try:
        folder = confine(root, upload.subfolder, field="subfolder")
        path = confine(root, os.path.join(os.path.relpath(folder, os.path.abspath(root)), upload.name), field="image")
        confine(folder, upload.name, field="image")
    except PathOutside as error:  # the contract answers 400 here, not 403
        raise FileNameInvalid("It leads out of the folder.", field=error.field) from error
    if os.path.isdir(path) or upload.name.endswith(("/", "\\")):
        raise FileNameInvalid("It names a folder.", field="image")
    make_folder(os.path.dirname(path), upload.subfolder or upload.name)
    return path


def store(path: str, name: str, data: bytes, overwrite: bool) -> str:
    """Write `data` at `path`, or under the first numbered name that is free or holds the same bytes; the base name used.

    Two uploads of one name at once get two names. Raises FileNameInvalid, FileUnwritable, FileTaken.
    """
    folder, base = os.path.split(path)
    stem, suffix = os.path.splitext(base)
    try:
        if overwrite:
            write_replace(path, data)
            return base
        for copy in range(MAX_COPIES):
            candidate = base if copy == 0 else f"{stem} ({copy}){suffix}"
            taken = os.path.join(folder, candidate)
            try:
                if not os.path.lexists(taken):
                    write_new(taken, data)
                    return candidate
            except FileExistsError:
                pass
            if _holds(taken, data):
                return candidate
    except OSError as error:
        raise unwritable(error, name) from error
    raise FileTaken("All numbered names are taken.", filename=name)


def _holds(path: str, data: bytes) -> bool:
    try:
        if not os.path.isfile(path) or os.path.getsize(path) != len(data):
            return False
        with open(path, "rb") as file:
            return file.read() == data
    except OSError:
        return False


def save_upload(folders: Folders, upload: Upload, data: bytes) -> dict[str, str]:
    """Store `data` as the upload asks; the answer's JSON. Raises what `place_of` and `store` raise."""
    path = place_of(folders, upload)
    stored = store(path, upload.name, data, upload.overwrite)
    name = os.path.join(os.path.dirname(upload.name), stored)
    return {"name": name, "subfolder": upload.subfolder, "type": upload.kind}


def original_of(folders: Folders, form: MultiMapping[Any]) -> str:
    """Path of the picture that `original_ref` names. Raises BadRequest for a broken reference, and what `resolve` raises."""
    try:
        reference = json.loads(_text(form, "original_ref", ""))
    except (ValueError, RecursionError):
        reference = None
    if not isinstance(reference, Mapping) or not all(isinstance(reference.get(key, ""), str) for key in ("filename", "type", "subfolder")):
        raise BadRequest("It must be a JSON object with filename, type and subfolder.", field="original_ref")
    return resolve(folders, reference)


def with_alpha_of(original_path: str, mask: IO[bytes], mask_name: str) -> bytes:
    """The original as an RGBA PNG whose alpha is that of `mask`, with the original's text chunks.

    Raises ImageUnreadable when one of the two is no picture or their sizes differ.
    """
    try:
        with (
            open_picture(original_path, os.path.basename(original_path)) as original,
            open_picture(io.BytesIO(mask.read()), mask_name) as cover,
        ):
            texts = PngInfo()
            for key, value in getattr(original, "text", {}).items():
                texts.add_text(key, value)
            picture = original.convert("RGBA")
            alpha = cover.convert("RGBA").getchannel("A") if has_alpha(cover) else Image.new("L", cover.size, 255)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageUnreadable(filename=mask_name) from error
    if alpha.size != picture.size:
        raise ImageUnreadable("The mask has another size than the original.", mask=list(alpha.size), original=list(picture.size))
    picture.putalpha(alpha)
    return encode(picture, "PNG", compress_level=4, pnginfo=texts)


def routes(server: PromptServer) -> web.RouteTableDef:
    """`/upload/image` and `/upload/mask`."""
    table = web.RouteTableDef()

    @table.post("/upload/image")
    async def upload_image(request: web.Request) -> web.Response:
        upload = upload_of(await read_form(request))
        return json_response(await asyncio.to_thread(lambda: save_upload(server.folders, upload, upload.content.read())))

    @table.post("/upload/mask")
    async def upload_mask(request: web.Request) -> web.Response:
        form = await read_form(request)
        upload = upload_of(form)

        def work() -> dict[str, str]:
            server.folders.by_type_or_raise(upload.kind)
            data = with_alpha_of(original_of(server.folders, form), upload.content, upload.name)
            return save_upload(server.folders, upload, data)

        return json_response(await asyncio.to_thread(work))

    return table
