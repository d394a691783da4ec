"""Model folders: which files there are of a kind, and where one of them lies. Facts: cli.md section 2, custom-nodes.md section 6."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from comfy.errors import FileMissing, FileNameInvalid, FolderUnknown
from comfy.folders.confine import check_name, collapse
from comfy.folders.tables import Names, map_legacy

log = logging.getLogger(__name__)

#: a folder that changed this shortly before it was listed may have changed again within one tick of its time stamp
_SETTLED_NS = 2_000_000_000
SKIPPED = (".git",)


@dataclass(frozen=True)
class _Listing:
    """What was found, and the state of disk and table that it was found in."""

    files: tuple[str, ...]
    asked: tuple[Any, ...]  #: folders and suffixes at that time
    mtimes: dict[str, int]  #: every folder walked -> its mtime in ns
    settled: bool


class ModelFolders:
    """Lookups over `names`, the dict that packs know as `folder_names_and_paths` and change at will.

    So nothing of it is copied for longer than a call, the pairs may be any two sequences, and legacy names are translated.
    Thread-safe: the listings are immutable and the dict that keeps them is only ever assigned to.
    """

    def __init__(self, names: Names) -> None:
        self.names = names
        self._listings: dict[str, _Listing] = {}

    def pair(self, kind: str) -> tuple[list[str], set[str]]:
        """(folders, lower-case suffixes) of `kind` now; raises FolderUnknown, which is a KeyError too."""
        kind = map_legacy(kind)
        try:
            folders, suffixes = self.names[kind][:2]
        except KeyError:
            raise FolderUnknown(folder=kind, known=sorted(self.names)) from None
        return [str(folder) for folder in folders], {str(suffix).lower() for suffix in suffixes}

    def folders(self, kind: str) -> list[str]:
        """A copy of the folders of `kind`."""
        return self.pair(kind)[0]

    def add(self, kind: str, folder: str, is_default: bool = False) -> None:
        """Append `folder` to `kind`, or with `is_default` put it (or move it) first; an unknown kind accepts every suffix."""
        kind = map_legacy(kind)
        pair = self.names.setdefault(kind, ([], set()))
        folders = pair[0]
        if not isinstance(folders, list):
            folders = list(folders)
            self.names[kind] = (folders, pair[1])
        if is_default:
            if folder in folders:
                folders.remove(folder)
            folders.insert(0, folder)
        elif folder not in folders:
            folders.append(folder)

    def filename_list(self, kind: str) -> list[str]:
        """Sorted names of the files of `kind`, relative to their folders, recursive. Raises FolderUnknown.

        Read again when a folder's mtime or the table changed.
        """
        folders, suffixes = self.pair(kind)
        asked = (tuple(folders), frozenset(suffixes))
        kept = self._listings.get(map_legacy(kind))
        if kept is not None and kept.asked == asked and kept.settled and _unchanged(kept.mtimes):
            return list(kept.files)
        now = time.time_ns()
        found: set[str] = set()
        mtimes: dict[str, int] = {}
        for folder in folders:
            mtimes.setdefault(folder, -1)  # absent: noticed when it appears
            for relative, directory, mtime in walk(folder):
                mtimes[directory] = mtime
                found.update(relative)
        files = tuple(sorted(by_suffix(found, suffixes)))
        settled = all(mtime < now - _SETTLED_NS for mtime in mtimes.values())
        self._listings[map_legacy(kind)] = _Listing(files, asked, mtimes, settled)
        return list(files)

    def full_path(self, kind: str, name: str) -> str | None:
        """Absolute path of the file `name` in the first folder that has it; None for unknown kinds and names.

        `..` in the name stops at the folder's root. Links are followed: people keep their models elsewhere.
        """
        try:
            folders = self.folders(kind)
            relative = collapse(check_name(name))
        except (FolderUnknown, FileNameInvalid):
            return None
        for folder in folders:
            path = os.path.join(folder, relative)
            if os.path.isfile(path):
                return os.path.abspath(path)
            if os.path.islink(path):
                log.warning("%s is a link to nothing", path)
        return None

    def full_path_or_raise(self, kind: str, name: str) -> str:
        """As `full_path`, or FolderUnknown, FileNameInvalid, FileMissing."""
        self.pair(kind)
        path = self.full_path(kind, check_name(name))
        if path is None:
            raise FileMissing(f"{kind} has no file of this name.", folder=kind, filename=name)
        return path


def by_suffix(names: Iterable[str], suffixes: Iterable[str]) -> list[str]:
    """Those names that end in one of `suffixes`, case-insensitively; all of them when there are no suffixes."""
    wanted = {suffix.lower() for suffix in suffixes}
    return [name for name in names if not wanted or os.path.splitext(name)[1].lower() in wanted]


def walk(root: str, skipped: Sequence[str] = SKIPPED, hidden: bool = True) -> Iterator[tuple[list[str], str, int]]:
    """(files relative to `root`, directory, its mtime in ns) for `root` and all below, in name order; links are followed.

    A link back to a folder that it lies in is not entered, so that a loop ends. Unreadable folders are logged and skipped.
    """
    stack: list[tuple[str, frozenset[tuple[int, int]]]] = [(root, frozenset())]
    while stack:
        directory, above = stack.pop()
        try:
            status = os.stat(directory)
            identity = (status.st_dev, status.st_ino)
            if identity in above:
                continue
            with os.scandir(directory) as entries:
                found = sorted((entry for entry in entries if hidden or not entry.name.startswith(".")), key=lambda entry: entry.name)
            below = [entry.path for entry in found if entry.name not in skipped and entry.is_dir()]
            files = [os.path.relpath(entry.path, root) for entry in found if not entry.is_dir()]
        except FileNotFoundError:
            continue
        except OSError as error:
            log.warning("folder %s cannot be listed: %s", directory, error.strerror)
            continue
        yield files, directory, status.st_mtime_ns
        stack.extend((path, above | {identity}) for path in reversed(below))


def _unchanged(mtimes: dict[str, int]) -> bool:
    for directory, mtime in mtimes.items():
        try:
            present = os.stat(directory).st_mtime_ns
        except OSError:
            present = -1
        if present != mtime:
            return False
    return True
