from __future__ import annotations

import asyncio
import threading
from typing import Any

import aiohttp
import pytest

from comfy_execution.events import Audience, BinaryMessage, Message
from tests.unit.web.helpers import Site, graph, with_site
from tests.unit.web.sockets import FLAGS, connect, preview, received, running, step, text


@pytest.mark.parametrize("path", ["/ws", "/api/ws"])
def test_the_first_message_is_the_status_with_the_sid(path: str) -> None:
    async def test(site: Site) -> None:
        ws = await site.http.ws_connect(path, params={"clientId": "aaa"})
        assert await text(ws) == {"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "aaa"}}
        for params in ({}, {"clientId": ""}):
            ws = await site.http.ws_connect(path, params=params)
            sid = (await text(ws))["data"]["sid"]
            assert len(sid) == 32
            assert int(sid, 16) >= 0

    with_site(test)


def test_a_plain_get_is_no_handshake() -> None:
    async def test(site: Site) -> None:
        async with site.http.get("/ws") as answer:
            assert answer.status == 400
            assert answer.content_type == "text/plain"

    with_site(test)


def test_a_client_that_comes_back_is_told_what_runs_for_it() -> None:
    async def test(site: Site) -> None:
        running(site, ("p1", "7", "aaa"), ("p2", "9", "aaa"), ("p3", "8", "bbb"))
        ws = await connect(site, "aaa")
        (got,) = await received(site, ws)
        assert got == [("executing", {"node": "7", "prompt_id": "p1"}), ("executing", {"node": "9", "prompt_id": "p2"})]

    with_site(test)


def test_flags_are_negotiated_by_the_first_message_only() -> None:
    async def test(site: Site) -> None:
        ws = await connect(site, "aaa")
        for ignored in ("no json", "[]", "5", "[" * 50_000):
            await ws.send_str(ignored)
        await ws.send_bytes(b"\0")
        await ws.send_json(FLAGS)
        assert await text(ws) == {"type": "feature_flags", "data": {"supports_preview_metadata": True, "max_upload_size": 104857600}}
        assert site.server.sockets_metadata == {"aaa": {"feature_flags": {"supports_preview_metadata": True}}}
        await ws.send_json({"type": "feature_flags", "data": {}})
        session = site.server.hub.sessions["aaa"]
        await ws.close()  # answered when the server has read all that came before
        assert session.flags == {"supports_preview_metadata": True}

    with_site(test)


@pytest.mark.parametrize(("first", "answered"), [({"type": "hello"}, False), ({"type": "feature_flags", "data": "x"}, True)])
def test_an_odd_first_message_negotiates_nothing(first: Any, answered: bool) -> None:
    async def test(site: Site) -> None:
        ws = await connect(site, "aaa")
        session = site.server.hub.sessions["aaa"]
        await ws.send_json(first)
        await ws.send_json(FLAGS)
        if answered:
            assert (await text(ws))["type"] == "feature_flags"
        assert await ws.close()
        assert session.flags == {}

    with_site(test)


@pytest.mark.parametrize(
    ("audience", "owner", "expected"),
    [
        (Audience.OWNER, "a", "a"),
        (Audience.OWNER, None, ""),
        (Audience.OWNER, "gone", ""),
        (Audience.OWNER_OR_ALL, "a", "a"),
        (Audience.OWNER_OR_ALL, "gone", ""),
        (Audience.OWNER_OR_ALL, None, "ab"),
        (Audience.ALL, "a", "ab"),
        (Audience.ALL, None, "ab"),
    ],
)
def test_who_gets_a_message(audience: Audience, owner: str | None, expected: str) -> None:
    async def test(site: Site) -> None:
        sockets = {sid: await connect(site, sid) for sid in "ab"}
        site.server.hub.publish(Message("m", {"x": float("nan")}, audience, owner))
        got = await received(site, *sockets.values())
        assert "".join(sid for sid, mine in zip(sockets, got) if mine == [("m", {"x": None})]) == expected
        assert sum(len(mine) for mine in got) == len(expected)

    with_site(test)


def test_two_clients_never_see_each_others_jobs() -> None:
    async def test(site: Site) -> None:
        sockets = {sid: await connect(site, sid, flags=sid == "b") for sid in "ab"}
        for sid in "ab":
            site.house.script.gate(f"job-{sid}")
            body = {"prompt": graph(), "prompt_id": f"job-{sid}", "client_id": sid}
            await site.json("POST", "/prompt", json=body)
        for sid in "ab":
            await site.wait(site.house.wait_started, f"job-{sid}")
            step(site, preview(f"job-{sid}", sid))
            site.server.hub.publish(BinaryMessage(3, b"for " + sid.encode(), sid))
        for sid in "ab":
            site.house.open(f"job-{sid}")
        await site.wait(site.house.wait_ended, "job-a", "job-b")
        for sid, mine in zip("ab", await received(site, *sockets.values())):
            events = [item for item in mine if isinstance(item, tuple) and item[0] != "status"]
            assert [(name, data["prompt_id"]) for name, data in events] == [
                ("execution_start", f"job-{sid}"),
                ("progress", f"job-{sid}"),
                ("execution_success", f"job-{sid}"),
                ("executing", f"job-{sid}"),
            ]
            frames = [item for item in mine if isinstance(item, bytes)]
            assert [frame[3] for frame in frames] == [4 if sid == "b" else 1, 3]
            assert frames[1] == b"\0\0\0\3for " + sid.encode()

    with_site(test)


def wait(event: threading.Event) -> None:
    assert event.wait(20)


def test_a_jobs_events_come_in_order_and_history_is_there_before_the_last_status() -> None:
    async def test(site: Site) -> None:
        ws = await connect(site, "a")
        posted = threading.Event()
        site.house.scheduler.all_lanes[0].queue.put_chore(lambda: wait(posted))  # the lane takes the job only when it is posted
        await site.json("POST", "/prompt", json={"prompt": graph(), "prompt_id": "p", "client_id": "a"})
        posted.set()
        names = []
        while not names or names[-1] != ("executing", None):
            message = await text(ws)
            names.append((message["type"], message["data"].get("status", {}).get("exec_info", {}).get("queue_remaining")))
        assert names == [
            ("status", 1),
            ("status", 1),
            ("execution_start", None),
            ("execution_success", None),
            ("status", 0),
            ("executing", None),
        ]
        assert list(await site.json("GET", "/history/p")) == ["p"]

    with_site(test, lanes=1)


def test_a_new_socket_takes_the_sid_over_and_keeps_it_when_the_old_one_closes() -> None:
    async def test(site: Site) -> None:
        old = await connect(site, "a")
        new = await connect(site, "a")
        site.server.send_sync("x", 1, "a")
        assert await received(site, new) == [[("x", 1)]]
        await old.close()
        await asyncio.wait_for(_only_one_open(site), 20)
        site.server.send_sync("x", 2, "a")
        assert await received(site, new) == [[("x", 2)]]
        assert (await old.receive(20)).type is aiohttp.WSMsgType.CLOSED  # and nothing before it
        await new.close()
        await asyncio.wait_for(_none_open(site), 20)
        assert site.server.sockets == {}

    with_site(test)


async def _only_one_open(site: Site) -> None:
    while len(site.server.hub._open) != 1:
        await asyncio.sleep(0)


async def _none_open(site: Site) -> None:
    while site.server.hub._open:
        await asyncio.sleep(0)


def test_idle_sockets_are_pinged_and_answer_or_not_stays_open() -> None:
    async def test(site: Site) -> None:
        ws = await site.http.ws_connect("/ws", autoping=False)
        await text(ws)
        for _ in range(3):  # no pong ever goes back
            site.server.hub.ping_all()
            assert (await ws.receive(20)).type is aiohttp.WSMsgType.PING
        assert await received(site, ws) == [[]]

    with_site(test)


def test_the_ping_task_pings_every_so_often() -> None:
    async def test(site: Site) -> None:
        ws = await site.http.ws_connect("/ws", autoping=False)
        await text(ws)
        task = asyncio.create_task(site.server.hub.ping_forever(0.001))
        for _ in range(2):
            assert (await ws.receive(20)).type is aiohttp.WSMsgType.PING
        task.cancel()
        assert await asyncio.wait([task], timeout=20)

    with_site(test)


def test_a_reader_that_stops_slows_nobody_and_is_dropped() -> None:
    async def test(site: Site) -> None:
        slow, quick = await connect(site, "slow"), await connect(site, "quick")
        assert slow._conn is not None
        assert slow._conn.transport is not None
        slow._conn.transport.pause_reading()  # type: ignore[attr-defined]
        data = "x" * 200_000
        for number in range(400):  # 80 MB: more than every buffer on the way together
            site.server.send_sync("big", [number, data], "slow")
            site.server.send_sync("small", number, "quick")
        assert await received(site, quick) == [[("small", number) for number in range(400)]]
        await asyncio.wait_for(_gone(site, "slow"), 20)
        assert list(site.server.sockets) == ["quick"]

    with_site(test)


async def _gone(site: Site, sid: str) -> None:
    while sid in site.server.sockets:
        await asyncio.sleep(0)


def test_events_of_many_threads_keep_each_threads_order_and_the_data_of_the_call() -> None:
    async def test(site: Site) -> None:
        ws = await connect(site, "a")
        shared: dict[str, int] = {}

        def send(name: str) -> None:
            own = dict(shared)
            for number in range(50):
                own["n"] = number
                site.server.send_sync(name, own, "a")

        threads = [threading.Thread(target=send, args=(name,)) for name in ("t1", "t2", "t3")]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        (got,) = await received(site, ws)
        for name in ("t1", "t2", "t3"):
            assert [data["n"] for event, data in got if event == name] == list(range(50))

    with_site(test)


def test_data_that_refer_to_themselves_are_left_out() -> None:
    async def test(site: Site) -> None:
        ws = await connect(site, "a")
        loop: list[Any] = []
        loop.append(loop)
        site.server.send_sync("round", loop)
        site.server.send_sync("odd", {"object": object, 5: (1, {2})})
        ((name, data),) = (await received(site, ws))[0]
        assert (name, data["5"]) == ("odd", [1, [2]])

    with_site(test)


def test_stopping_the_server_closes_every_socket() -> None:
    async def test(site: Site) -> None:
        ws = await connect(site, "a")
        task = asyncio.create_task(ws.receive(20))
        await site.server.stop()
        assert (await task).type is aiohttp.WSMsgType.CLOSE
        assert ws.close_code == 1001
        site.server.send_sync("late", {})

    with_site(test)
