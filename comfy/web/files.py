"""POST /upload/image and /upload/mask. Facts: http-api.md section 6, whose marked defects are mended here."""

from __future__ import annotations

import asyncio
import email.message
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aiohttp import BodyPartReader, web
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from comfy.errors import BadRequest, BodyTooLarge, FileNameInvalid, FileTaken, ImageUnreadable, PathOutside
from comfy.folders import Folders
from comfy.folders.atomic import make_folder, unwritable, write_new, write_replace
from comfy.folders.confine import confine
from comfy.images_io import encode, open_picture
from comfy.web.errors import json_response
from comfy.web.view import has_alpha, resolve

if TYPE_CHECKING:
    from server import PromptServer

MAX_COPIES = 10_000  #: numbered names tried for files of one name
MAX_FIELDS = 100  #: of a form
_CODINGS = ("Content-Encoding", "Content-Transfer-Encoding")
_PLAIN = frozenset({"", "identity", "binary", "7bit", "8bit"})


@dataclass(frozen=True)
class Part:
    """A file field of a form: its name as sent, its bytes."""

    name: str
    data: bytes


Form = Mapping[str, "str | Part"]


@dataclass(frozen=True)
class Upload:
    """One uploaded file and where its sender wants it. `subfolder` and `kind` are echoed as sent."""

    name: str
    data: bytes
    kind: str
    subfolder: str
    overwrite: bool


async def read_form(request: web.Request) -> Form:
    """The fields of a multipart body, the first of each name. Raises BadRequest for any other body, BodyTooLarge.

    Read here rather than by aiohttp, which leaves its temporary files open when the body breaks off.
    """
    if request.content_type != "multipart/form-data":
        raise BadRequest("A multipart/form-data body is expected.")
    fields: dict[str, str | Part] = {}
    left = request.client_max_size
    try:
        reader = await request.multipart()
        for _ in range(MAX_FIELDS):
            part = await reader.next()
            if part is None:
                return fields
            if not isinstance(part, BodyPartReader) or not _PLAIN.issuperset(part.headers.get(name, "").lower() for name in _CODINGS):
                raise BadRequest("A part of the form is nested or encoded.")
            data = await _read_part(part, left)
            left -= len(data)
            field, file_name = _names(part)
            if field is not None:
                fields.setdefault(field, data.decode() if file_name is None else Part(file_name, data))
    except (ValueError, AssertionError, LookupError, RuntimeError, web.RequestPayloadError) as error:
        raise BadRequest("The multipart body cannot be read.") from error
    raise BadRequest("The form has too many fields.", limit=MAX_FIELDS)


def _names(part: BodyPartReader) -> tuple[str | None, str | None]:
    """(field, file name) of a part. aiohttp gives up on names with several semicolons, the standard library does not."""
    if part.name is not None:
        return part.name, part.filename
    message = email.message.Message()
    message["Content-Disposition"] = part.headers.get("Content-Disposition", "")
    field, file_name = message.get_param("name", header="Content-Disposition"), message.get_filename()
    return (field if isinstance(field, str) else None), (None if file_name is None else file_name.lstrip("/\\"))


async def _read_part(part: BodyPartReader, limit: int) -> bytes:
    data = bytearray()
    while chunk := await part.read_chunk():
        data += chunk
        if len(data) > limit:
            raise BodyTooLarge()
    return bytes(data)


def upload_of(form: Form) -> Upload:
    """The form's fields. Raises BadRequest when there is no file, FileNameInvalid when it has no name."""
    part = form.get("image")
    if not isinstance(part, Part):
        raise BadRequest("The field must be a file with a name.", field="image")
    if not part.name:
        raise FileNameInvalid("The file has no name.", field="image")
    return Upload(
        name=part.name,
        data=part.data,
        kind=_text(form, "type", "input"),
        subfolder=_text(form, "subfolder", ""),
        overwrite=form.get("overwrite") in ("true", "1"),
    )


def _text(form: Form, field: str, default: str) -> str:
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


def save_upload(folders: Folders, upload: Upload) -> dict[str, str]:
    """Store the upload where it asks; the answer's JSON. Raises what `place_of` and `store` raise."""
    path = place_of(folders, upload)
    stored = store(path, upload.name, upload.data, upload.overwrite)
    name = os.path.join(os.path.dirname(upload.name), stored)
    return {"name": name, "subfolder": upload.subfolder, "type": upload.kind}


def original_of(folders: Folders, form: Form) -> str:
    """Path of the picture that `original_ref` names. Raises BadRequest for a broken reference, and what `resolve` raises."""
    try:
        reference = json.loads(_text(form, "original_ref", ""))
    except (ValueError, RecursionError):
        reference = None
    if not isinstance(reference, Mapping) or not all(isinstance(reference.get(key, ""), str) for key in ("filename", "type", "subfolder")):
        raise BadRequest("It must be a JSON object with filename, type and subfolder.", field="original_ref")
    return resolve(folders, reference)


def with_alpha_of(original_path: str, mask: bytes, mask_name: str) -> bytes:
    """The original as an RGBA PNG whose alpha is that of `mask`, with the original's text chunks.

    Raises ImageUnreadable when one of the two is no picture or their sizes differ.
    """
    try:
        with (
            open_picture(original_path, os.path.basename(original_path)) as original,
            open_picture(io.BytesIO(mask), mask_name) as cover,
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


def save_mask(folders: Folders, form: Form) -> dict[str, str]:
    """Store the original with the uploaded alpha; the answer's JSON. Raises what its parts raise, storing nothing then."""
    upload = upload_of(form)
    folders.by_type_or_raise(upload.kind)
    data = with_alpha_of(original_of(folders, form), upload.data, upload.name)
    return save_upload(folders, replace(upload, data=data))


def routes(server: PromptServer) -> web.RouteTableDef:
    """`/upload/image` and `/upload/mask`."""
    table = web.RouteTableDef()

    @table.post("/upload/image")
    async def upload_image(request: web.Request) -> web.Response:
        upload = upload_of(await read_form(request))
        return json_response(await asyncio.to_thread(save_upload, server.folders, upload))

    @table.post("/upload/mask")
    async def upload_mask(request: web.Request) -> web.Response:
        form = await read_form(request)
        return json_response(await asyncio.to_thread(save_mask, server.folders, form))

    return table
