"""Files that nodes make for the user: where they go, what is embedded, what the front end is told (contract: files.md 1-3)."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from comfy import control, folders
from comfy.errors import InputUnusable
from comfy.images_io import Pixels, metadata, to_uint8

Result = dict[str, str]


def random_suffix() -> str:
    """`_temp_` and five letters: not from `random`, which packs seed, so that two lanes never get the same."""
    return "_temp_" + "".join(secrets.choice(string.ascii_lowercase) for _ in range(5))


def texts_for(prompt: Any = None, extra_pnginfo: Any = None) -> dict[str, str]:
    """What is embedded in a file; nothing with --disable-metadata."""
    return {} if folders.current().config.disable_metadata else metadata(prompt, extra_pnginfo)


def save_files(
    encoded: Sequence[Callable[[], bytes]], prefix: str, extension: str, kind: str = "output", width: int = 0, height: int = 0
) -> list[Result]:
    """Write one file per item under the prefix's next numbers; what the front end needs to show them.

    kind  "output" or "temp". Raises PathOutside, FileNameInvalid, FileUnwritable; Interrupted between two files.
    """
    here = folders.current()
    place = here.save_target(prefix, here.temp_dir if kind == "temp" else here.output_dir, width, height)
    names = place.write([partial(_unless_stopped, encode) for encode in encoded], extension)
    return [{"filename": name, "subfolder": place.subfolder, "type": kind} for name in names]


def _unless_stopped(encode: Callable[[], bytes]) -> bytes:
    control.check()
    return encode()


def pixels_of(images: Any) -> list[Pixels]:
    """(b, h, w, c) floats -> one (h, w, c) uint8 array per picture. Raises InputUnusable when there is none."""
    if len(images) == 0 or any(image.ndim != 3 for image in images):
        raise InputUnusable("There must be pictures of the shape (height, width, channels).", field="images")
    return [to_uint8(image) for image in images]
