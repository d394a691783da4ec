"""Names of result files: `<prefix>_<counter>_.<ext>`, unique between lanes. Facts: files.md section 1, parallel-hazards.md section 5.

The counter is what the folder's listing says, plus what was given out and is not on disk yet. A saver of ours reserves
the numbers it needs, writes each file with `write_new`, which never overwrites, and gives the reservation back. A pack
gets only a first number and counts on by itself: while its node runs, others are kept a whole batch away from it.
"""

from __future__ import annotations

import os
import re
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

from comfy import control
from comfy.errors import PathOutside
from comfy.folders.atomic import make_folder, unwritable, write_new
from comfy.folders.confine import check_name, check_relative, confine, is_within

DEFAULT_NAME = "ComfyUI"  #: of a prefix without a last part
BATCH_NUM = "%batch_num%"
#: numbers kept free for a pack that was given a first number and did not say how many it needs: EmptyLatentImage's largest batch
PACK_BLOCK = 4096
_VARIABLE = re.compile(r"%(width|height|year|month|day|hour|minute|second)%")


def expand(prefix: str, width: int, height: int, now: time.struct_time | None = None) -> str:
    """`prefix` with the server's variables replaced, in the folder part too; local time."""
    now = now or time.localtime()
    values = {
        "width": str(width),
        "height": str(height),
        "year": str(now.tm_year),
        "month": f"{now.tm_mon:02}",
        "day": f"{now.tm_mday:02}",
        "hour": f"{now.tm_hour:02}",
        "minute": f"{now.tm_min:02}",
        "second": f"{now.tm_sec:02}",
    }
    return _VARIABLE.sub(lambda match: values[match[1]], prefix)


def split(prefix: str, directory: str) -> tuple[str, str, str]:
    """An expanded prefix -> (absolute folder, subfolder relative to `directory`, name). Creates nothing.

    An absolute prefix inside `directory` counts as relative to it. Raises FileNameInvalid and PathOutside, also when a
    link on the way leads out of `directory`.
    """
    root = os.path.abspath(directory)
    absolute = os.path.normpath(os.path.join(root, check_name(prefix, "filename_prefix")))
    if not is_within(root, absolute):
        raise PathOutside(field="filename_prefix")
    relative = check_relative(os.path.relpath(absolute, root), "filename_prefix")
    subfolder, name = os.path.split(relative)
    if name in ("", os.curdir):
        name = DEFAULT_NAME
    return confine(root, subfolder, field="filename_prefix"), subfolder, name


def last_number(folder: str, name: str) -> int:
    """The highest counter that the folder's listing shows for `name`, 0 when there is none.

    Entries starting with `<name>_` count, whatever follows the digits; `%batch_num%` in `name` stands for any number.
    """
    try:
        listed = "/" + "/".join(os.listdir(folder))  # one pass of the regex engine: a long listing must not hold the interpreter
    except FileNotFoundError:
        return 0
    if os.name == "nt":
        name, listed = name.lower(), listed.lower()
    wanted = "[0-9]+".join(re.escape(part) for part in name.split(BATCH_NUM))
    return max(map(int, re.findall(rf"/{wanted}_([0-9]+)(?=_|/|\Z)", listed)), default=0)


@dataclass(eq=False)
class _Prefix:
    """Numbers of one (folder, name) that are given out and may not be on disk yet. Lives while `users` > 0."""

    high: int = 0
    users: int = 0


Key = tuple[str, str]


@dataclass(eq=False)
class Reservation:
    """`count` numbers from `first` on that nobody else in this process gets until the `with` block ends."""

    first: int
    count: int
    _release: Callable[[], None] = field(repr=False)

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._release()


class SaveNames:
    """Gives out counters. Thread-safe; no lock is held while the disk is read.

    Invariant: a number given out is above every number on disk when the call began, and above every number given out for
    the same prefix whose reservation was open at any time during the call. So two open reservations never overlap.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._prefixes: dict[Key, _Prefix] = {}
        self._packs: dict[tuple[Key, object], Callable[[], bool]] = {}

    def reserve(self, folder: str, name: str, count: int = 1, above: int = 0) -> Reservation:
        """The next `count` consecutive numbers of `name` in `folder`, all of them greater than `above`."""
        key = _key(folder, name)
        first = self._take(key, folder, name, count, above)
        return Reservation(first, count, lambda: self._release(key))

    def first_for_pack(self, folder: str, name: str) -> int:
        """The next number, for a caller that counts on from it while its node runs (or its thread lives, outside a job)."""
        key = _key(folder, name)
        owner, is_open = _owner()
        self._close_packs(key, owner)
        first = self._take(key, folder, name, PACK_BLOCK, 0)
        with self._lock:
            self._packs[key, owner] = lambda: is_open(folder, name, first)
        return first

    def _take(self, key: Key, folder: str, name: str, count: int, above: int) -> int:
        self._close_packs(key, None)
        with self._lock:
            prefix = self._prefixes.setdefault(key, _Prefix())
            prefix.users += 1  # from before the listing is read: files of reservations that end meanwhile are still known
        try:
            on_disk = last_number(folder, name)
        except OSError as error:
            self._release(key)
            raise unwritable(error, name) from error
        with self._lock:
            first = max(on_disk, prefix.high, above) + 1
            prefix.high = first + count - 1
        return first

    def _release(self, key: Key) -> None:
        with self._lock:
            prefix = self._prefixes[key]
            prefix.users -= 1
            if prefix.users == 0:
                del self._prefixes[key]

    def _close_packs(self, key: Key, owner: object) -> None:
        """Take back the blocks of packs that are done, and the one that `owner` holds for `key`."""
        with self._lock:
            packs = list(self._packs.items())
        for entry, is_open in packs:
            if entry != (key, owner) and is_open():
                continue
            with self._lock:
                mine = self._packs.get(entry) is is_open  # another thread may close it, or its owner may have got a new one
                if mine:
                    del self._packs[entry]
            if mine:
                self._release(entry[0])

    def statistics(self) -> tuple[int, int]:
        """(prefixes in use, blocks of packs that are open)."""
        with self._lock:
            return len(self._prefixes), len(self._packs)


def _key(folder: str, name: str) -> Key:
    return os.path.realpath(folder), os.path.normcase(name)


#: (folder, name, first number given out) -> whether its owner may still be writing
IsOpen = Callable[[str, str, int], bool]


def _owner() -> tuple[object, IsOpen]:
    """Who asks: the node that runs in this job, else the calling thread. With how to tell that it may still be writing.

    A thread outside any job says nothing about its end, so there the block is over with the thread or its first file.
    """
    job = control.current()
    if job is None:
        thread = weakref.ref(threading.current_thread())

        def thread_writes(folder: str, name: str, first: int) -> bool:
            held = thread()
            return held is not None and held.is_alive() and last_number(folder, name) < first

        return threading.get_ident(), thread_writes
    held, node_id = weakref.ref(job), job.node_id

    def node_runs(folder: str, name: str, first: int) -> bool:
        present = held()
        return present is not None and present.node_id == node_id

    return (id(job), node_id), node_runs


def image_name(name: str, index: int, number: int, extension: str) -> str:
    """`("x", 0, 7, ".png")` -> `x_00007_.png`; `%batch_num%` in the name becomes `index`."""
    return f"{name.replace(BATCH_NUM, str(index))}_{number:05}_{extension}"


@dataclass(frozen=True)
class SaveTarget:
    """Where files of one prefix go: `folder` is absolute and exists, `subfolder` is relative to the output folder."""

    folder: str
    name: str
    subfolder: str
    prefix: str
    names: SaveNames = field(repr=False)

    def write(self, encoded: list[Callable[[], bytes]], extension: str) -> list[str]:
        """Write one file per item of `encoded`, under consecutive numbers; their names, in order.

        Each item is called just before its file is written, and may raise. When another process takes one of the numbers, the rest moves
        on to fresh ones. Raises FileNameInvalid or FileUnwritable; the files written until then stay.
        """
        written: list[str] = []
        collided = 0
        while len(written) < len(encoded):
            with self.names.reserve(self.folder, self.name, len(encoded) - len(written), above=collided) as block:
                offset = block.first - len(written)
                self._write_block(encoded, extension, offset, written)
            collided = offset + len(written)
        return written

    def _write_block(self, encoded: list[Callable[[], bytes]], extension: str, offset: int, written: list[str]) -> None:
        """Write until everything is written or a name turns out to be taken."""
        for index in range(len(written), len(encoded)):
            file_name = image_name(self.name, index, offset + index, extension)
            try:
                write_new(os.path.join(self.folder, file_name), encoded[index]())
            except FileExistsError:
                return
            except OSError as error:
                raise unwritable(error, file_name) from error
            written.append(file_name)


def target(names: SaveNames, prefix: str, directory: str, width: int = 0, height: int = 0) -> SaveTarget:
    """Expand and check `prefix`, create its folder. Raises FileNameInvalid, PathOutside, FileUnwritable."""
    prefix = expand(check_name(prefix, "filename_prefix"), width, height)
    folder, subfolder, name = split(prefix, directory)
    make_folder(folder, subfolder or name)
    return SaveTarget(folder, name, subfolder, prefix, names)
