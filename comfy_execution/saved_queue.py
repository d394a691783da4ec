"""The waiting jobs on disk, between an orderly stop and the next start: `user/queue.json`.

The file holds no secrets: a job that needs an API key has to be sent again. A SIGKILL writes nothing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from comfy import jsonio
from comfy_execution.job import Job
from comfy_execution.queue import JobRow

log = logging.getLogger(__name__)

_FIELDS = tuple(field.name for field in fields(Job) if field.name != "secrets")


def save(path: Path, rows: Iterable[JobRow]) -> int:
    """Write the jobs of `rows` with their lanes, in order, by atomic rename; without any, remove the file. Returns how many."""
    entries = [{"lane": row.lane, **{name: getattr(row.job, name) for name in _FIELDS}} for row in rows]
    if not entries:
        path.unlink(missing_ok=True)
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".json.part")
    with open(os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
        file.write(jsonio.dump_bytes({"version": 1, "jobs": entries}))
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    return len(entries)


def load(path: Path) -> list[tuple[int, Job]]:
    """The saved (lane, job) pairs in order; a file that cannot be read is set aside as `queue.json.bad`."""
    try:
        entries = json.loads(path.read_bytes())["jobs"]
        return [(int(entry["lane"]), _job(entry)) for entry in entries]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        bad = path.with_suffix(".json.bad")
        log.error("the saved queue %s cannot be read (%s); it is now %s", path.name, error, bad.name)
        with contextlib.suppress(OSError):
            os.replace(path, bad)
        return []


def _job(entry: dict[str, Any]) -> Job:
    values = {name: entry[name] for name in _FIELDS}
    if not isinstance(values["prompt"], dict) or not isinstance(values["prompt_id"], str):
        raise ValueError("not a job")
    return Job(**{**values, "outputs": tuple(values["outputs"])})
