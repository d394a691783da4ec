"""Websocket clients for tests, and the events that lanes would publish."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

from comfy_execution.events import Audience, Message, PreviewImage
from comfy_execution.views import RunningView
from tests.unit.web.helpers import Site

FLAGS = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
Socket = aiohttp.ClientWebSocketResponse


async def text(ws: Socket) -> dict[str, Any]:
    """The next message, which must be text, within the test's time."""
    message = await ws.receive(20)
    assert message.type is aiohttp.WSMsgType.TEXT, message
    value: dict[str, Any] = json.loads(message.data)
    return value


async def connect(site: Site, sid: str | None, path: str = "/ws", flags: bool = False) -> Socket:
    """A socket that has read its first status, and negotiated flags when asked."""
    ws = await site.http.ws_connect(path, params={} if sid is None else {"clientId": sid})
    first = await text(ws)
    assert first["type"] == "status"
    if flags:
        await ws.send_json(FLAGS)
        assert (await text(ws))["type"] == "feature_flags"
    return ws


async def received(site: Site, *sockets: Socket) -> list[list[Any]]:
    """What each socket got up to now: text as (type, data), binary as bytes. Sends a last event to find the end."""
    site.server.send_sync("end", {})
    found = []
    for ws in sockets:
        mine: list[Any] = []
        while True:
            message = await ws.receive(20)
            if message.type is aiohttp.WSMsgType.BINARY:
                mine.append(message.data)
                continue
            assert message.type is aiohttp.WSMsgType.TEXT, message
            value = json.loads(message.data)
            if value["type"] == "end":
                break
            mine.append((value["type"], value["data"]))
        found.append(mine)
    return found


def preview(prompt_id: str, client_id: str | None) -> PreviewImage:
    return PreviewImage(b"PIC", "image/jpeg", "2.0", "2", "2", "2", prompt_id, client_id, 0)


def running(site: Site, *jobs: tuple[str, str, str | None]) -> None:
    """Pretend that these (prompt_id, node_id, client_id) run."""

    def running_of(client_id: str | None) -> list[RunningView]:
        return [RunningView(prompt_id, node, 0) for prompt_id, node, owner in jobs if owner == client_id]

    site.house.scheduler.running_of = running_of  # type: ignore[method-assign, assignment]


def step(site: Site, event: PreviewImage) -> None:
    """What a sampler's step sends: the preview, then its progress."""
    site.server.hub.publish(event)
    site.server.hub.publish(Message("progress", {"prompt_id": event.prompt_id}, Audience.OWNER_OR_ALL, event.client_id))


async def pictures(site: Site, *sockets: Socket) -> list[list[bytes]]:
    """The binary frames that each socket got up to now."""
    return [[item for item in mine if isinstance(item, bytes)] for mine in await received(site, *sockets)]


LEGACY = bytes.fromhex("0000000100000001") + b"PIC"
