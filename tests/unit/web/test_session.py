from __future__ import annotations

import asyncio
from typing import Any

import pytest

from comfy.web import session as session_module
from comfy.web.session import PING, Frame, Session


class Socket:
    """A websocket that keeps what it is sent, and reads only while `open`."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.open = asyncio.Event()
        self.open.set()
        self.blocked = asyncio.Event()
        self.closed_with: list[int] = []
        self.broken = False

    async def _take(self, what: Any) -> None:
        if self.broken:
            raise ConnectionResetError
        if not self.open.is_set():
            self.blocked.set()
        await self.open.wait()
        self.sent.append(what)

    send_str = send_bytes = _take

    async def ping(self) -> None:
        await self._take("ping")

    async def close(self, *, code: int) -> None:
        self.closed_with.append(code)


class Transport:
    aborted = False

    def abort(self) -> None:
        self.aborted = True


def with_session(test: Any) -> None:
    async def run() -> None:
        socket, transport = Socket(), Transport()
        session = Session("sid", socket, transport)  # type: ignore[arg-type]
        session.start()
        await asyncio.wait_for(test(session, socket, transport), 20)
        socket.open.set()
        await session.close()

    asyncio.run(run())


async def drained(session: Session, socket: Socket, count: int) -> None:
    while len(socket.sent) < count:
        await asyncio.sleep(0)


async def block(session: Session, socket: Socket) -> None:
    """Have the writer wait on a socket that reads nothing."""
    socket.open.clear()
    session.offer(Frame("first"))
    await socket.blocked.wait()


def test_frames_leave_in_order() -> None:
    async def test(session: Session, socket: Socket, transport: Transport) -> None:
        for frame in (Frame("a"), Frame(b"b", preview=True), PING, Frame("c")):
            session.offer(frame)
        await drained(session, socket, 4)
        assert socket.sent == ["a", b"b", "ping", "c"]

    with_session(test)


def test_a_slow_reader_loses_old_previews_and_no_message() -> None:
    async def test(session: Session, socket: Socket, transport: Transport) -> None:
        await block(session, socket)
        for index in range(20):
            session.offer(Frame(f"m{index}"))
            session.offer(Frame(b"%d" % index, preview=True))
        assert session.waiting == 20 + session_module.MAX_PREVIEWS
        socket.open.set()
        await drained(session, socket, 1 + 20 + session_module.MAX_PREVIEWS)
        assert [item for item in socket.sent if isinstance(item, str)] == ["first", *(f"m{index}" for index in range(20))]
        assert [item for item in socket.sent if isinstance(item, bytes)] == [b"16", b"17", b"18", b"19"]
        assert not transport.aborted

    with_session(test)


def test_a_reader_far_behind_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "MAX_MESSAGES", 5)

    async def test(session: Session, socket: Socket, transport: Transport) -> None:
        await block(session, socket)
        session.offer(Frame(b"p", preview=True))
        for index in range(5):
            session.offer(Frame(f"m{index}"))
        assert (session.waiting, transport.aborted) == (5, False)  # the preview went first
        session.offer(Frame(b"p", preview=True))
        assert (session.waiting, transport.aborted) == (5, False)  # a preview more cuts nobody off
        session.offer(Frame("one too many"))
        assert (session.waiting, transport.aborted) == (0, True)
        session.offer(Frame("later"))
        assert session.waiting == 0

    with_session(test)


def test_bytes_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "MAX_BYTES", 100)

    async def test(session: Session, socket: Socket, transport: Transport) -> None:
        await block(session, socket)
        session.offer(Frame("x" * 60))
        assert not transport.aborted
        session.offer(Frame("x" * 60))
        assert transport.aborted

    with_session(test)


def test_a_socket_that_breaks_ends_the_writer_quietly() -> None:
    async def test(session: Session, socket: Socket, transport: Transport) -> None:
        socket.broken = True
        session.offer(Frame("a"))
        session.offer(Frame("b"))
        while session.waiting:
            await asyncio.sleep(0)
        session.offer(Frame("c"))
        assert session.waiting == 0

    with_session(test)


def test_closing_a_blocked_session_does_not_wait_for_its_reader() -> None:
    async def test(session: Session, socket: Socket, transport: Transport) -> None:
        await block(session, socket)
        await session.close()
        assert socket.closed_with == [1001]

    with_session(test)


@pytest.mark.parametrize(
    ("flags", "takes"), [({}, False), ({"supports_preview_metadata": True}, True), ({"supports_preview_metadata": 1}, False)]
)
def test_only_the_exact_flag_counts(flags: dict[str, Any], takes: bool) -> None:
    async def run() -> None:
        session = Session("sid", Socket())  # type: ignore[arg-type]
        session.flags = flags
        assert session.takes_metadata is takes

    asyncio.run(run())


def test_a_held_frame_follows_the_next_one_and_no_ping() -> None:
    async def test(session: Session, socket: Socket, transport: Transport) -> None:
        session.offer_after_next(Frame(b"1"))
        session.offer(PING)
        session.offer(Frame("a"))
        session.offer_after_next(Frame(b"2"))
        session.offer_after_next(Frame(b"3"))
        session.offer(Frame("b"))
        await drained(session, socket, 6)
        assert socket.sent == ["ping", "a", b"1", b"2", "b", b"3"]

    with_session(test)
