"""Names that clients send, joined to a folder so that they cannot leave it. Facts: http-api.md section 6, files.md section 4."""

from __future__ import annotations

import os
import re

from comfy.errors import FileNameInvalid, PathOutside


def check_name(name: object, field: str = "filename") -> str:
    """`name` itself when the file system can hold it; else FileNameInvalid.

    Refused: what is not text, NUL bytes, and lone surrogates that are no byte of a file name (JSON can carry them).
    """
    if not isinstance(name, str):
        raise FileNameInvalid("It must be text.", field=field, received=type(name).__name__)
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        raise FileNameInvalid("It cannot be encoded.", field=field) from None
    if "\0" in name:
        raise FileNameInvalid("It holds a NUL byte.", field=field)
    return name


def check_relative(name: object, field: str = "filename") -> str:
    """`name` itself when it is usable and relative; `..` is left to `confine`, except behind a backslash."""
    name = check_name(name, field)
    if os.path.isabs(name) or name.startswith(("/", "\\")) or os.path.splitdrive(name)[0]:
        raise PathOutside("It must be relative.", field=field)
    if "\\" in name and ".." in re.split(r"[/\\]", name):
        raise PathOutside(field=field)
    return name


def confine(base: str, *parts: str, field: str = "filename") -> str:
    """Absolute path of `parts` under the folder `base`; the file need not exist.

    Raises FileNameInvalid for unusable names, PathOutside for absolute parts, `..` that leaves the folder (also written
    with backslashes, on any system) and links whose target lies outside. `base` itself may be a link.
    """
    for part in parts:
        check_relative(part, field)
    root = os.path.abspath(base)
    path = os.path.normpath(os.path.join(root, *parts))
    if not is_within(root, path) or not is_within(os.path.realpath(root), os.path.realpath(path)):
        raise PathOutside(field=field)
    return path


def is_within(root: str, path: str) -> bool:
    """Whether `path` is `root` or below it. Both absolute and normalized; reads nothing from disk."""
    root, path = os.path.normcase(root), os.path.normcase(path)
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def collapse(name: str) -> str:
    """`name` as a relative path whose `..` stop at the folder's root: `../../x` -> `x` (cli.md section 2, Lookup)."""
    return os.path.relpath(os.path.join(os.sep, name.lstrip("/\\") if os.path.isabs(name) else name), os.sep)
