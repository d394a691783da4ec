"""One websocket's way out: a bounded queue and the task that empties it, so that a slow reader slows nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSCloseCode, web

from comfy.units import MIB

log = logging.getLogger(__name__)

MAX_MESSAGES = 1000  #: waiting for one socket; a reader further behind is cut off and may come back
MAX_BYTES = 64 * MIB
MAX_PREVIEWS = 4  #: waiting previews; the oldest goes first, since only the newest is looked at


@dataclass(frozen=True)
class Frame:
    """One message on its way: text, or bytes, or (None) a ping."""

    data: str | bytes | None = field(repr=False)
    preview: bool = False

    @property
    def nbytes(self) -> int:
        """Size of the message; text is ASCII."""
        return 0 if self.data is None else len(self.data)


PING = Frame(None)


class Session:
    """One client's socket. Used on the event loop only.

    Invariants: at most MAX_MESSAGES frames and MAX_BYTES wait, at most MAX_PREVIEWS of them previews; after `cut_off` none do.
    """

    def __init__(self, sid: str, ws: web.WebSocketResponse, transport: asyncio.Transport | None = None) -> None:
        self.sid = sid
        self.ws = ws
        self.flags: Mapping[str, Any] = {}
        self._transport = transport
        self._queue: deque[Frame] = deque()
        self._nbytes = 0
        self._held: Frame | None = None
        self._wake = asyncio.Event()
        self._closed = False
        self._writer: asyncio.Task[None] | None = None

    @property
    def takes_metadata(self) -> bool:
        """Whether the client negotiated previews with metadata (frames of kind 4)."""
        return self.flags.get("supports_preview_metadata") is True

    @property
    def waiting(self) -> int:
        """How many frames wait."""
        return len(self._queue)

    def start(self) -> None:
        """Start the task that writes to the socket."""
        self._writer = asyncio.create_task(self._write(), name=f"websocket-{self.sid}")

    def offer(self, frame: Frame) -> None:
        """Let a frame wait for the socket. Never waits itself: previews are dropped, then the socket is cut off."""
        self._push(frame)
        if self._held is not None and frame is not PING:
            held, self._held = self._held, None
            self._push(held)

    def offer_after_next(self, frame: Frame) -> None:
        """Let a frame wait behind the next one that is offered."""
        if self._held is not None:
            self._push(self._held)
        self._held = frame

    def _push(self, frame: Frame) -> None:
        if self._closed:
            return
        if frame.preview and sum(waiting.preview for waiting in self._queue) >= MAX_PREVIEWS:
            self._drop_oldest_preview()
        if self._full(frame):
            self._drop_all_previews()
            if self._full(frame):
                if not frame.preview:
                    self.cut_off()
                return
        self._queue.append(frame)
        self._nbytes += frame.nbytes
        self._wake.set()

    def cut_off(self) -> None:
        """Give up on a reader that does not keep up: forget what waits and drop the connection."""
        log.warning("websocket %r reads too slowly: dropped with %d messages waiting", self.sid[:8], len(self._queue))
        self._forget()
        if self._transport is not None:
            self._transport.abort()

    async def close(self, code: int = WSCloseCode.GOING_AWAY) -> None:
        """Stop writing and close the socket; idempotent."""
        self._forget()
        if self._writer is not None:
            await asyncio.wait([self._writer])
        with contextlib.suppress(ConnectionError, RuntimeError):
            await self.ws.close(code=code)

    def _forget(self) -> None:
        self._closed = True
        self._held = None
        self._queue.clear()
        self._nbytes = 0
        if self._writer is not None:
            self._writer.cancel()

    def _full(self, frame: Frame) -> bool:
        return len(self._queue) >= MAX_MESSAGES or self._nbytes + frame.nbytes > MAX_BYTES

    def _drop_oldest_preview(self) -> None:
        oldest = next(index for index, waiting in enumerate(self._queue) if waiting.preview)
        self._nbytes -= self._queue[oldest].nbytes
        del self._queue[oldest]

    def _drop_all_previews(self) -> None:
        self._queue = deque(waiting for waiting in self._queue if not waiting.preview)
        self._nbytes = sum(waiting.nbytes for waiting in self._queue)

    async def _write(self) -> None:
        try:
            while True:
                while self._queue:
                    frame = self._queue.popleft()
                    self._nbytes -= frame.nbytes
                    await self._send(frame)
                self._wake.clear()
                await self._wake.wait()
        except (ConnectionError, RuntimeError) as error:  # the socket closed under us; its handler ends too
            log.debug("websocket %r: %s", self.sid[:8], error)
            self._closed = True
            self._queue.clear()

    async def _send(self, frame: Frame) -> None:
        if frame.data is None:
            await self.ws.ping()
        elif isinstance(frame.data, str):
            await self.ws.send_str(frame.data)
        else:
            await self.ws.send_bytes(frame.data)
