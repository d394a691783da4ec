"""What a file is by its suffix: for the choices of loader nodes and for safe answers over HTTP.

The table is ours and private: the system's mime files differ between machines, and some of them are wrong.
"""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Iterable

_OWN = {
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".jxl": "image/jxl",
    ".svg": "image/svg+xml",
    ".flac": "audio/flac",
    ".opus": "audio/ogg",
    ".ogg": "audio/ogg",
    ".m4a": "audio/mp4",
    ".mkv": "video/x-matroska",
    ".webm": "video/webm",
    ".glb": "model/gltf-binary",
    ".gltf": "model/gltf+json",
    ".obj": "model/obj",
    ".stl": "model/stl",
    ".fbx": "model/fbx",
    ".json": "application/json",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".latent": "application/octet-stream",
    ".safetensors": "application/octet-stream",
}
_types = mimetypes.MimeTypes(filenames=())
for _suffix, _type in _OWN.items():
    _types.add_type(_type, _suffix)

#: suffix without dot -> class, asked first; packs add to this very dict as `folder_paths.extension_mimetypes_cache`
CLASSES: dict[str, str] = {"webp": "image", "fbx": "model"}

#: what a browser shows without running anything; SVG is apart (see `safe_type`)
_PASSIVE_CLASSES = ("image/", "audio/", "video/", "model/", "font/")
_PASSIVE_TYPES = frozenset({"application/json", "text/plain", "text/csv", "application/pdf", "application/zip"})

#: sent with every file whose bytes a client or a workflow chose: no scripts, no frames, no loads, whatever the type
SANDBOX = "sandbox; default-src 'none'; img-src 'self' data: blob:; media-src 'self' data: blob:; style-src 'unsafe-inline'"


def mime_type(name: str) -> str:
    """`a.PNG` -> `image/png`; `application/octet-stream` when unknown."""
    return _types.types_map[1].get(os.path.splitext(name)[1].lower(), "application/octet-stream")


def content_class(name: str) -> str:
    """First half of the type: image, audio, video, model, text, application."""
    return CLASSES.get(os.path.splitext(name)[1].lower().removeprefix("."), "") or mime_type(name).partition("/")[0]


def of_classes(names: Iterable[str], classes: Iterable[str]) -> list[str]:
    """Those `names` whose class is one of `classes`, in the order given."""
    wanted = frozenset(classes)
    return [name for name in names if content_class(name) in wanted]


def safe_type(name: str) -> tuple[str, bool]:
    """Content type for a file of unknown author, and whether the browser must save it instead of showing it.

    What could run script as a document (HTML, XML, JavaScript …) becomes a download of bytes. SVG keeps its type, so that
    `<img>` shows it (scripts never run there), but is a download when opened by itself.
    """
    kind = mime_type(name)
    if kind == "image/svg+xml":
        return kind, True
    if kind in _PASSIVE_TYPES or kind.startswith(_PASSIVE_CLASSES):
        return kind, False
    return "application/octet-stream", True
