"""The folders of this process: `configure()` once at the start, `current()` everywhere else."""

from __future__ import annotations

import os
import threading

from comfy.config import PROGRAM_DIR, Config
from comfy.folders.core import Folders
from comfy.folders.saving import Reservation, SaveTarget

__all__ = ["Folders", "Reservation", "SaveTarget", "configure", "current"]

_lock = threading.Lock()
_current: Folders | None = None


def configure(config: Config, program_dir: str | os.PathLike[str] = PROGRAM_DIR) -> Folders:
    """Make the folders of `config` those of the process. Raises ConfigError; the present ones stay then."""
    global _current
    folders = Folders(config, program_dir)
    with _lock:
        _current = folders
    return folders


def current() -> Folders:
    """The folders of the process; those of a default Config when nothing was configured."""
    global _current
    with _lock:
        if _current is None:
            _current = Folders(Config())
        return _current
