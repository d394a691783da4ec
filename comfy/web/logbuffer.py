"""The last lines of the console, for the front end's terminal. Facts: http-api.md section 9, websocket.md section 6.

`install()` puts a tee in front of stdout and stderr. Log lines pass it too: the console handlers write to what `sys.stderr`
is at that moment. A pack may put its own stream in front of ours, as the manager does; its output then still comes through.
"""

from __future__ import annotations

import contextlib
import datetime
import shutil
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO, cast

CAPACITY = 300  #: writes kept

Entry = dict[str, str]  #: {"t": ISO time, "m": text}


class LogBuffer:
    """The last writes, from any thread. `on_flush` is called without a lock held and never from within itself."""

    def __init__(self, capacity: int = CAPACITY, now: Callable[[], datetime.datetime] = datetime.datetime.now) -> None:
        self.on_flush: Callable[[], None] | None = None
        self._now = now
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque(maxlen=capacity)
        self._unsent: deque[Entry] = deque(maxlen=capacity)
        self._flushing = threading.local()

    def add(self, text: str) -> None:
        """Keep one write. Text that starts with a carriage return replaces an unfinished last entry (a progress bar)."""
        if not text:
            return
        entry = {"t": self._now().isoformat(), "m": text}
        with self._lock:
            for entries in (self._entries, self._unsent):
                if entries and text.startswith("\r") and not entries[-1]["m"].endswith("\n"):
                    entries.pop()
                entries.append(entry)

    def entries(self) -> list[Entry]:
        """What is kept, oldest first."""
        with self._lock:
            return [dict(entry) for entry in self._entries]

    def take_unsent(self) -> list[Entry]:
        """What was added since the last call."""
        with self._lock:
            taken = list(self._unsent)
            self._unsent.clear()
        return taken

    def flushed(self) -> None:
        """A stream was flushed: tell whoever listens, unless that listener's own writes are what was flushed."""
        if self.on_flush is None or getattr(self._flushing, "now", False):
            return
        self._flushing.now = True
        try:
            with contextlib.suppress(Exception):  # a broken listener must not break whoever prints
                self.on_flush()
        finally:
            self._flushing.now = False


class Tee:
    """A text stream that writes to `stream` and keeps a copy in `buffer`; in all else it is `stream`."""

    def __init__(self, stream: TextIO, buffer: LogBuffer) -> None:
        self._stream = stream
        self._buffer = buffer

    def write(self, text: str) -> int:
        """Write and keep; the copy is kept also when the console is gone."""
        self._buffer.add(text)
        return self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Each line as one write."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the stream and tell the listeners."""
        self._stream.flush()
        self._buffer.flushed()

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_lock = threading.Lock()
_installed: LogBuffer | None = None


def install() -> LogBuffer:
    """Put the tees in front of `sys.stdout` and `sys.stderr`, once; the process's buffer. Call it after logging is set up."""
    global _installed
    with _lock:
        if _installed is None:
            _installed = LogBuffer()
            sys.stdout = cast(TextIO, Tee(sys.stdout, _installed))
            sys.stderr = cast(TextIO, Tee(sys.stderr, _installed))
        return _installed


def current() -> LogBuffer:
    """The installed buffer; an empty one of its own when nothing was installed."""
    return _installed or LogBuffer()


def terminal_size() -> dict[str, int]:
    """Columns and rows of the console."""
    size = shutil.get_terminal_size()
    return {"cols": size.columns, "rows": size.lines}
