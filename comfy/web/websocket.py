"""Websockets: who is connected, and which of them gets what (contract: websocket.md)."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from aiohttp import WSMsgType, web

from comfy import jsonio
from comfy.units import MIB
from comfy.web import frames
from comfy.web.info import features
from comfy.web.session import PING, Frame, Session
from comfy_execution.events import Audience, BinaryMessage, Event, Message, PreviewImage

if TYPE_CHECKING:
    from server import PromptServer

log = logging.getLogger(__name__)

PING_S = 30.0  #: proxies cut sockets that are idle for a minute or ten; a tab that answers late is never cut by us
MAX_CLIENT_MESSAGE_BYTES = 4 * MIB
CLOSE_S = 2.0  #: how long a closing socket may take to say goodbye


class Hub:
    """The connected sessions by id. `publish` may be called from any thread, the rest on the event loop only.

    Invariant: `sessions[sid]` is the newest socket of that sid; an older one stays open and is sent nothing more.
    """

    def __init__(self, server: PromptServer) -> None:
        self._server = server
        self._open: set[Session] = set()
        self.sessions: dict[str, Session] = {}

    def register(self, session: Session) -> None:
        """Make `session` the one of its sid."""
        self._open.add(session)
        self.sessions[session.sid] = session

    def unregister(self, session: Session) -> None:
        """Forget a closed session; a newer one of the same sid stays."""
        self._open.discard(session)
        if self.sessions.get(session.sid) is session:
            del self.sessions[session.sid]

    def publish(self, event: Event) -> None:
        """Send one event to those whom it is for. Its data are encoded here, once: the caller may change them after."""
        if isinstance(event, Message):
            if self._anyone(event.audience, event.client_id):
                self._publish_json(event)
        elif isinstance(event, BinaryMessage):
            audience = Audience.OWNER_OR_ALL
            if self._anyone(audience, event.client_id):
                self._on_loop(Frame(frames.frame(event.kind, event.payload)), audience, event.client_id)
        elif isinstance(event, PreviewImage) and self._anyone(Audience.OWNER_OR_ALL, event.client_id):
            # asked here, in the lane's thread: when the loop comes to it, the job may be over and the next one running
            alone = set(self._running(event.client_id)) <= {event.prompt_id}
            self._call(self._preview, event, alone)

    def _publish_json(self, event: Message) -> None:
        try:
            text = jsonio.dumps({"type": event.name, "data": event.data})
        except (RecursionError, ValueError):  # a node's data that refer to themselves: its job goes on without this event
            log.exception("event %s cannot be written as JSON and is not sent", event.name)
            return
        self._on_loop(Frame(text), event.audience, event.client_id)

    def ping_all(self) -> None:
        """Ping every open socket that has nothing to send, older ones of a sid too."""
        for session in self._open:
            if session.waiting == 0:
                session.offer(PING)

    async def ping_forever(self, every_s: float = PING_S) -> None:
        """Keep idle sockets alive through proxies, until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            self.ping_all()

    async def close(self) -> None:
        """Close every socket."""
        await asyncio.gather(*(session.close() for session in list(self._open)))

    def _anyone(self, audience: Audience, client_id: str | None) -> bool:
        """Whether anybody may want it; read without the loop, so a client that connects this moment may miss it."""
        if audience is Audience.ALL or (audience is Audience.OWNER_OR_ALL and client_id is None):
            return bool(self.sessions)
        return client_id in self.sessions

    def _recipients(self, audience: Audience, client_id: str | None) -> Iterable[Session]:
        if audience is Audience.ALL or (audience is Audience.OWNER_OR_ALL and client_id is None):
            return self.sessions.values()
        owner = self.sessions.get(client_id) if client_id is not None else None
        return () if owner is None else (owner,)

    def _on_loop(self, frame: Frame, audience: Audience, client_id: str | None) -> None:
        self._call(self._send, frame, audience, client_id)

    def _call(self, function: Any, *args: Any) -> None:
        loop = self._server.loop
        if loop is None or loop.is_closed():
            return
        try:
            loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # closed between the question and the call: nobody is connected any more
            log.debug("an event came after the event loop had closed")

    def _send(self, frame: Frame, audience: Audience, client_id: str | None) -> None:
        for session in self._recipients(audience, client_id):
            session.offer(frame)

    def _preview(self, event: PreviewImage, alone: bool) -> None:
        """A preview in the form that each client can tell apart from those of other jobs.

        Kind 4 names its job. Kind 1 does not, so it goes only to a client whose one running job it is of (`alone`); that of
        an anonymous job goes to clients without a running job of their own, and only while no other anonymous job runs.
        Kind 4 comes before the step's `progress`, kind 1 after it (contract: websocket.md section 4.3).
        """
        if event.client_id is not None:
            session = self.sessions.get(event.client_id)
            if session is not None and session.takes_metadata:
                session.offer(_with_metadata(event))
            elif session is not None and alone:
                session.offer_after_next(_legacy(event))
        elif alone:
            frame = _legacy(event)
            for session in self.sessions.values():
                if not self._running(session.sid):
                    session.offer_after_next(frame)

    def _running(self, client_id: str | None) -> list[str]:
        return [job.prompt_id for job in self._server.scheduler.running_of(cast(str, client_id))]  # None finds the anonymous ones


def _legacy(event: PreviewImage) -> Frame:
    return Frame(frames.frame(1, frames.image_payload(event.image, event.image_type)), preview=_droppable(event))


def _with_metadata(event: PreviewImage) -> Frame:
    metadata = {
        "node_id": event.node_id,
        "prompt_id": event.prompt_id,
        "display_node_id": event.display_node_id,
        "parent_node_id": event.parent_node_id,
        "real_node_id": event.real_node_id,
        "image_type": event.image_type,
    }
    return Frame(frames.frame(4, frames.metadata_payload(event.image, metadata)), preview=_droppable(event))


def _droppable(event: PreviewImage) -> bool:
    """Samplers' previews are JPEG and the newest is enough; a PNG is a result that a node sends to its client."""
    return event.image_type != "image/png"


def _json(name: str, data: dict[str, Any]) -> Frame:
    return Frame(jsonio.dumps({"type": name, "data": data}))


def _greet(server: PromptServer, session: Session) -> None:
    """The first messages of a connection: the queue's length with the sid, then what runs for this client."""
    status = {"exec_info": {"queue_remaining": server.scheduler.remaining()}}
    session.offer(_json("status", {"status": status, "sid": session.sid}))
    for job in server.scheduler.running_of(session.sid):
        if job.node_id is not None:
            session.offer(_json("executing", {"node": job.node_id, "prompt_id": job.prompt_id}))


def _first_message(server: PromptServer, session: Session, text: str) -> bool:
    """Read a client's message as its first; False when it is not a JSON object and so does not count as one."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        log.warning("websocket %r sent a message that is no JSON object: %.80r", session.sid[:8], text)
        return False
    if message.get("type") == "feature_flags":
        data = message.get("data")
        session.flags = data if isinstance(data, dict) else {}
        session.offer(_json("feature_flags", features(server.config)))
    return True


async def _read(server: PromptServer, session: Session) -> None:
    started = False
    async for message in session.ws:
        if message.type is WSMsgType.TEXT and not started:
            started = _first_message(server, session, message.data)
        elif message.type is WSMsgType.ERROR:
            log.debug("websocket %r: %s", session.sid[:8], session.ws.exception())


def routes(server: PromptServer) -> web.RouteTableDef:
    """`/ws`."""
    table = web.RouteTableDef()

    @table.get("/ws")
    async def websocket(request: web.Request) -> web.StreamResponse:
        scheduler = server.scheduler  # NotReady before the handshake, not after
        assert scheduler is not None
        ws = web.WebSocketResponse(max_msg_size=MAX_CLIENT_MESSAGE_BYTES, timeout=CLOSE_S)
        await ws.prepare(request)
        transport = request.transport
        assert transport is None or isinstance(transport, asyncio.Transport)
        session = Session(request.query.get("clientId") or uuid.uuid4().hex, ws, transport)
        _greet(server, session)
        server.hub.register(session)
        session.start()
        try:
            await _read(server, session)
        finally:
            server.hub.unregister(session)
            await session.close()
        return ws

    return table
