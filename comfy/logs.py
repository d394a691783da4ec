"""Where log lines go: the console and `logs/comfyui_<YYYYmmdd_HHMMSS>.log`.

Operators grep these lines (docs/architecture.md lists them). A line is its message, after its level from WARNING on, and in
the file after the local time; or, with `--log-format json`, an object. Nothing here is called on import.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

from comfy.config import Config
from comfy.errors import ConfigError

FILE_BYTES = 50 * 1024**2  #: size at which the file is rotated
FILES_KEPT = 5  #: rotated files kept beside the current one: <name>.log.1 is the youngest


class LineFormatter(logging.Formatter):
    """`message`, or `WARNING message` from WARNING on; a traceback follows on its own lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return record.message if record.levelno < logging.WARNING else f"{record.levelname} {record.message}"


class FileFormatter(LineFormatter):
    """The same after the local time: a file is read on another day, a console or the journal tells the time itself."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return f"{self.formatTime(record, '%Y-%m-%d %H:%M:%S')} {super().formatMessage(record)}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, thread, message, and where there is one the action and the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "thread": record.threadName,
            "message": record.getMessage(),
        }
        action = getattr(record, "action", None)
        if action is not None:
            told["action"] = str(action)
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


class ConsoleHandler(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` (or `sys.stdout`) is at that moment, so that a replaced stream is followed."""

    def __init__(self, name: str) -> None:
        self._name_of_stream = name
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        found: TextIO = getattr(sys, self._name_of_stream)
        return found


def setup(config: Config, log_dir: Path) -> Path:
    """Send the root logger to the console and to a new file in `log_dir`; returns the file.

    With `config.log_stdout` what is below ERROR goes to stdout. Called again it replaces its own handlers and no others.
    Raises ConfigError when the file cannot be made.
    """
    path = _new_file(log_dir)
    for stream in (sys.stdout, sys.stderr):
        # A console in another encoding (LANG=C) must not lose lines for their emoji.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    handlers: list[logging.Handler] = [
        logging.handlers.RotatingFileHandler(
            path, maxBytes=FILE_BYTES, backupCount=FILES_KEPT, encoding="utf-8", errors="backslashreplace"
        ),
        ConsoleHandler("stderr"),
    ]
    if config.log_stdout:
        handlers[1].setLevel(logging.ERROR)
        quiet = ConsoleHandler("stdout")
        quiet.addFilter(lambda record: record.levelno < logging.ERROR)
        handlers.append(quiet)
    close()
    root = logging.getLogger()
    for handler in handlers:
        in_file = isinstance(handler, logging.FileHandler)
        handler.setFormatter(JsonFormatter() if config.log_format == "json" else FileFormatter() if in_file else LineFormatter())
        root.addHandler(handler)
        _ours.append(handler)
    root.setLevel(config.log_level)
    return path


def close() -> None:
    """Take this module's handlers off the root logger and close the file; idempotent."""
    root = logging.getLogger()
    while _ours:
        handler = _ours.pop()
        root.removeHandler(handler)
        handler.close()


#: handlers that `setup` put on the root logger
_ours: list[logging.Handler] = []


def _new_file(log_dir: Path) -> Path:
    """Make an empty file of the operator's name for it; two servers that start in one second get two files."""
    stem = time.strftime("comfyui_%Y%m%d_%H%M%S")
    try:
        log_dir.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, 1000):
            path = log_dir / (f"{stem}.log" if attempt == 1 else f"{stem}_{attempt}.log")
            try:
                path.open("x").close()
            except FileExistsError:
                continue
            return path
    except OSError as error:
        raise ConfigError("The log file cannot be made.", folder=str(log_dir), reason=error.strerror) from error
    raise ConfigError("The log folder is full of files of this second.", folder=str(log_dir))
