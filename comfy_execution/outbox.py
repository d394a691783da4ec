"""One job's messages on their way out: held back, in order, while what they name is not yet decided or not yet on disk."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from comfy_execution.events import Event, Message

#: how a job ended; published when the lane is sure that it will not run the job again
TERMINAL = frozenset({"execution_success", "execution_error", "execution_interrupted"})


class Outbox:
    """Passes a job's events to `publish` at once, until one must wait; from then on all wait behind it.

    A terminal message waits for `release()`. An event published after `hold(future)` waits until that future is done:
    a saver that writes its file in a pool holds the job's events on it, and the lane's thread works on.
    """

    def __init__(self, publish: Callable[[Event], None]) -> None:
        self._publish = publish
        self._lock = threading.Lock()
        self._queue: deque[Event] = deque()
        self._files: set[Future[object]] = set()
        self._released = False
        self._draining = False

    def publish(self, event: Event) -> None:
        """Send the event as soon as nothing before it must wait."""
        with self._lock:
            self._queue.append(event)
        self._drain()

    def hold(self, file: Future[object]) -> None:
        """Hold back all events from now on until `file` is done."""
        with self._lock:
            self._files.add(file)
        file.add_done_callback(self._written)

    def drop(self) -> None:
        """Forget what is held back: the job will run again and end in another way."""
        with self._lock:
            self._queue.clear()

    def release(self) -> None:
        """Let the terminal message go."""
        with self._lock:
            self._released = True
        self._drain()

    def _written(self, file: Future[object]) -> None:
        with self._lock:
            self._files.discard(file)
        self._drain()

    def _drain(self) -> None:
        """Publish from the front; one thread at a time, so that the order holds."""
        while True:
            with self._lock:
                if self._draining or self._files or not self._queue:
                    return
                event = self._queue[0]
                if isinstance(event, Message) and event.name in TERMINAL and not self._released:
                    return
                self._queue.popleft()
                self._draining = True
            try:
                self._publish(event)
            finally:
                with self._lock:
                    self._draining = False
