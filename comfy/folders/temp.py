"""The temp folder between several servers: only who is alone in it may empty it.

Every server that uses the folder holds a shared lock on `.lock` in it. Emptying needs the exclusive lock, which nobody gets
while another server lives. The reference empties it unasked, also when it then fails to bind its port (cli.md section 4).
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows: no shared locks; an open file cannot be removed there, which serves as the lock
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)
LOCK_NAME = ".lock"


class TempFolder:
    """This process's use of one temp folder, from `claim()` to `release()`. Both may be called again; both never raise."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock_path = os.path.join(path, LOCK_NAME)
        self._lock: IO[Any] | None = None

    def claim(self) -> bool:
        """Create the folder and, when no other server uses it, empty it. True when it was emptied."""
        if self._lock is not None:
            return False
        for _ in range(8):  # the last user may remove folder and lock between our steps
            try:
                os.makedirs(self.path, exist_ok=True)
                emptied = self._enter()
            except FileNotFoundError:
                continue
            except OSError as error:
                log.warning("temp folder %s: %s", self.path, error)
                return False
            if emptied is not None:
                break
        else:
            log.warning("temp folder %s: its lock changes all the time", self.path)
            return False
        if not emptied:
            log.info("temp folder %s is in use by another server and is left as it is", self.path)
        return emptied

    def release(self) -> bool:
        """Give the folder up; the last server to do so removes it. True when it was emptied."""
        if self._lock is None:
            return False
        alone = _lock_alone(self._lock)
        if alone:
            _empty(self.path)
        if fcntl is None:
            self._lock.close()  # an open file cannot be removed there
        if alone:
            with contextlib.suppress(OSError):
                os.unlink(self._lock_path)
        self._lock.close()
        self._lock = None
        if alone:
            with contextlib.suppress(OSError):  # a link, or somebody created a file in this moment
                os.rmdir(self.path)
        return alone

    def _enter(self) -> bool | None:
        """Lock the folder: True after emptying it, False beside others, None when the lock file was replaced meanwhile."""
        if fcntl is None:
            with contextlib.suppress(PermissionError, FileNotFoundError):
                os.unlink(self._lock_path)
        alone = not os.path.exists(self._lock_path) if fcntl is None else True
        lock = open(self._lock_path, "a")  # noqa: SIM115 - held open as long as the folder is in use
        alone = alone and _lock_alone(lock)
        if alone:
            _empty(self.path)
        _lock_shared(lock)
        if not os.path.exists(self._lock_path) or not os.path.samestat(os.fstat(lock.fileno()), os.stat(self._lock_path)):
            lock.close()
            return None
        self._lock = lock
        return alone


def _lock_alone(lock: IO[Any]) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _lock_shared(lock: IO[Any]) -> None:
    if fcntl is not None:
        with contextlib.suppress(OSError):  # a file system without locks: then nobody is ever alone, and nothing is emptied
            fcntl.flock(lock, fcntl.LOCK_SH)


def _empty(path: str) -> None:
    """Remove what is in the folder, links as links; what cannot be removed stays."""
    for entry in list(os.scandir(path)):
        if entry.name == LOCK_NAME:
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                os.unlink(entry.path)
