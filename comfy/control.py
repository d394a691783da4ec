"""The running job as the code inside its nodes sees it: whom it belongs to, its stop flag, its progress sink.

A lane enters one `JobControl` for the length of a job. It lives in a context variable, so it is right in the lane's
thread, in the asyncio tasks of that job's nodes and in pool threads started with `contextvars.copy_context().run`;
elsewhere (the HTTP loop, a thread that a pack started bare) there is none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from comfy.errors import Interrupted

#: (value, max, preview or None, node id or None); preview is (format, PIL image, max side or None)
ProgressSink = Callable[[float, float, Any, str | None], None]


def _ignore(value: float, maximum: float, preview: Any, node_id: str | None) -> None:
    return None


@dataclass(eq=False)
class JobControl:
    """One running job. `stop` may be set from any thread; the rest is used by the lane's thread."""

    prompt_id: str
    client_id: str | None = None
    lane: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    progress: ProgressSink = _ignore
    #: id of the node that runs now, as `executing` named it last
    node_id: str | None = None

    def check(self) -> None:
        """Raise Interrupted when the job was asked to stop."""
        if self.stop.is_set():
            raise Interrupted(self.prompt_id)


_current: ContextVar[JobControl | None] = ContextVar("comfy_job_control", default=None)


def current() -> JobControl | None:
    """The calling code's job, or None outside any job."""
    return _current.get()


def check() -> None:
    """Raise Interrupted when the calling code's job was asked to stop; does nothing outside a job."""
    control = _current.get()
    if control is not None:
        control.check()


@contextmanager
def entered(control: JobControl) -> Iterator[JobControl]:
    """Make `control` the calling context's job for the `with` block."""
    token = _current.set(control)
    try:
        yield control
    finally:
        _current.reset(token)
