"""websocket.md sections 1 to 3, 5 and 6: who is connected, who gets what, and what the frames look like."""

from __future__ import annotations

import contextlib
import io
import json
import re
import struct
from typing import Any

import aiohttp
import pytest
from PIL import Image

from tests.conformance.site import Site, Tab, node, short
from tests.conformance.test_orders import lane, steps


def handshake(site: Site, headers: dict[str, str]) -> int:
    """Status of a websocket handshake."""
    wanted = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "A" * 22 + "=="}
    return site.request("GET", "/ws", headers=wanted | headers).status


@pytest.mark.parametrize("path", ["/ws", "/api/ws"])
def test_the_first_message_tells_the_count_and_the_sid(site: Site, path: str) -> None:
    tab = site.tab("aaa", path=path)
    assert tab.log == [("status", {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "aaa"})]
    assert re.fullmatch("[0-9a-f]{32}", site.tab(path=path).sid)


def test_a_plain_get_is_400(site: Site) -> None:
    assert site.get("/ws").status == 400


def test_another_sites_page_gets_no_socket(site: Site) -> None:
    assert handshake(site, {"Origin": "http://evil.example"}) == 403


def test_feature_flags_are_answered_once_as_the_first_message(site: Site) -> None:
    tab = site.tab()
    for text in ("no json", "[1]"):
        tab.send(text)
    tab.send({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
    assert tab.next() == ("feature_flags", {"supports_preview_metadata": True, "max_upload_size": 104857600})
    tab.send({"type": "feature_flags", "data": {}})
    assert tab.drain() == []


def test_feature_flags_after_another_message_are_ignored(site: Site) -> None:
    tab = site.tab()
    tab.send({"type": "hello"})
    tab.send({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
    seen = tab.run(steps(100, 1, preview=True), None, lane(site))
    assert "feature_flags" not in seen
    assert ("binary 1" in seen, "binary 4" in seen) == (True, False)


def test_the_newest_socket_of_a_sid_gets_its_events_also_after_the_older_one_closed(site: Site) -> None:
    old, new = site.tab("twice"), site.tab("twice")
    seen = new.run(steps(101, 1), None, lane(site))
    assert seen[-1] == "executing None"
    old.close()
    assert new.run(steps(102, 1), None, lane(site))[-1] == "executing None"
    assert old.log == [("status", {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "twice"})]


def test_the_server_answers_pings(site: Site) -> None:
    tab = site.tab()

    async def ping() -> None:
        await tab.ws.ping(b"x")

    site.loop.run(ping())
    assert tab.drain() == []


def test_a_client_that_comes_back_in_mid_job_is_told_its_node(site: Site) -> None:
    gate = f"back-{site.lanes}"
    first = site.tab("back")
    prompt_id = first.post(steps(103, 2, gate), None, lane(site))
    site.open(gate)
    first.until(prompt_id, "progress", value=1)
    again = site.tab("back")
    name, data = again.next()
    assert (name, data["node"]) == ("executing", "1")
    assert site.tab("stranger").drain() == []
    site.open(gate)
    again.until(prompt_id)
    assert "execution_success" in [short(entry) for entry in again.log]


def test_what_goes_to_the_owner_only(site: Site) -> None:
    mine, other = site.tab("mine"), site.tab("other")
    prompt = steps(104, 1, preview=True) | {"9": node("ProbeText", text="psst")}
    mine.run(prompt, None, lane(site))
    assert {name for name, _ in (entry for entry in mine.log if isinstance(entry, tuple))} >= {"execution_start", "executed", "progress"}
    assert {short(entry) for entry in mine.log if isinstance(entry, bytes)} == {"binary 1", "binary 3"}
    assert {short(entry).split()[0] for entry in other.drain()} == {"status"}


def test_what_everybody_gets_of_an_anonymous_job(site: Site) -> None:
    tab = site.tab()
    answer = site.post("/prompt", {"prompt": steps(105, 1, preview=True)}, **({"X_TARGET_GPU": "0"} if site.multi else {}))
    assert answer.status == 200
    site.finish([answer.json()["prompt_id"]])
    assert {short(entry).split(" ")[0].partition("{")[0] for entry in tab.drain()} == {"status", "PS", "progress", "binary"}


def test_an_anonymous_interrupted_or_blocked_job_is_told_to_all(site: Site) -> None:
    tab, gate = site.tab(), f"anonymous-{site.lanes}"
    header = {"X_TARGET_GPU": "0"} if site.multi else {}
    prompt_id = site.post("/prompt", {"prompt": steps(106, 5, gate)}, **header).json()["prompt_id"]
    site.open(gate)
    tab.until(prompt_id, "progress", value=1)
    site.post("/interrupt", {})
    tab.until(prompt_id, "execution_interrupted")
    blocked = {"1": node("ProbeBlock", message="m"), "2": node("ProbeShow", value=["1", 0])}
    prompt_id = site.post("/prompt", {"prompt": blocked}, **header).json()["prompt_id"]
    tab.until(prompt_id, "execution_error", exception_type="ExecutionBlocked")


def test_a_job_of_an_unknown_client_is_told_to_nobody(site: Site) -> None:
    tab = site.tab()
    header = {"X_TARGET_GPU": "0"} if site.multi else {}
    answer = site.post("/prompt", {"prompt": steps(107, 1), "client_id": "gone"}, **header)
    site.finish([answer.json()["prompt_id"]])
    assert {short(entry).split()[0] for entry in tab.drain()} == {"status"}


def frames(tab: Tab) -> list[bytes]:
    return [entry for entry in tab.log if isinstance(entry, bytes)]


def picture(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_kind_1_is_a_format_and_a_picture_fitted_to_the_preview_size(site: Site) -> None:
    tab = site.tab()
    tab.run(steps(108, 1, preview=True), None, lane(site))
    (frame,) = frames(tab)
    assert struct.unpack(">II", frame[:8]) == (1, 1)
    assert (picture(frame[8:]).format, picture(frame[8:]).size) == ("JPEG", (512, 256))


def test_kind_4_names_its_node_and_job(site: Site) -> None:
    tab = site.tab(metadata=True)
    prompt_id = tab.post(steps(109, 1, preview=True), None, lane(site))
    tab.until(prompt_id)
    (frame,) = frames(tab)
    kind, length = struct.unpack(">II", frame[:8])
    metadata: dict[str, Any] = json.loads(frame[8 : 8 + length])
    ids = {"node_id": "1", "prompt_id": prompt_id, "display_node_id": "1", "parent_node_id": None, "real_node_id": "1"}
    assert (kind, metadata) == (4, {**ids, "image_type": "image/jpeg"})
    assert picture(frame[8 + length :]).size == (512, 256)


def test_kind_3_is_a_node_and_its_text(site: Site) -> None:
    tab = site.tab()
    tab.run({"t": node("ProbeText", text="hello")}, None, lane(site))
    assert frames(tab) == [bytes.fromhex("00000003 00000001 74") + b"hello"]


def test_logs_go_to_those_who_subscribed(site: Site) -> None:
    listener, other = site.tab("listener"), site.tab("deaf")
    assert site.request("PATCH", "/internal/logs/subscribe", json={"clientId": "listener", "enabled": True}).status == 200
    site.post("/prompt", {"prompt": {}})
    name, data = listener.next()
    assert name == "logs"
    assert set(data) == {"entries", "size"}
    assert [set(entry) for entry in data["entries"]] == [{"t", "m"}] * len(data["entries"])
    assert "got prompt" in "".join(entry["m"] for entry in data["entries"])
    assert other.drain() == []
    assert site.request("PATCH", "/internal/logs/subscribe", json={"clientId": "listener", "enabled": False}).status == 200


def test_a_message_over_4_mib_from_a_client_ends_its_socket_only(site: Site) -> None:
    tab, other = site.tab(), site.tab()
    with contextlib.suppress(ConnectionError):  # the server closes before the last of it was sent
        tab.send("x" * (4 * 2**20 + 1))

    async def closed() -> aiohttp.WSMsgType:
        return (await tab.ws.receive()).type

    assert site.loop.run(closed()) in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
    assert other.drain() == []
