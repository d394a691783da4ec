from __future__ import annotations

import asyncio
import contextvars
import logging
import socket
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import protocol
import server as server_module
from comfy.config import Config
from comfy.control import JobControl, entered
from comfy.errors import ConfigError, NotReady
from comfy.nodes.registry import NodeRegistry
from comfy.web.listen import browser_url, ready_lines
from server import BinaryEventTypes, PromptServer
from tests.unit.web.helpers import Site, graph, with_site
from tests.unit.web.sockets import connect, received

ON_0 = {"X-TARGET-GPU": "0"}
PACK_NAMES = (
    *("app", "routes", "loop", "client_id", "last_node_id", "last_prompt_id", "number", "sockets", "sockets_metadata", "supports"),
    *("user_manager", "web_root", "port", "address", "send", "send_sync", "send_progress_text"),
    *("add_on_prompt_handler", "trigger_on_prompt"),
)


def test_the_names_that_packs_import() -> None:
    assert protocol.BinaryEventTypes is BinaryEventTypes is server_module.BinaryEventTypes
    assert {kind.name: kind.value for kind in BinaryEventTypes} == {
        "PREVIEW_IMAGE": 1,
        "UNENCODED_PREVIEW_IMAGE": 2,
        "TEXT": 3,
        "PREVIEW_IMAGE_WITH_METADATA": 4,
    }
    server = PromptServer(Config(), NodeRegistry())
    assert PromptServer.instance is server
    for name in PACK_NAMES:
        assert hasattr(server, name), name
    assert isinstance(server.routes, web.RouteTableDef)
    with pytest.raises(NotReady):
        server.prompt_queue.get_tasks_remaining()


def test_routes_of_packs_are_served_twice_and_a_bad_one_hurts_nobody(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("static")

    def prepare(server: PromptServer) -> None:
        @server.routes.get("/pack/{name}", name="pack")
        async def get(request: web.Request) -> web.Response:
            return web.json_response(request.match_info["name"])

        @server.routes.post("/pack/x")
        async def post(request: web.Request) -> web.Response:
            return web.json_response(await request.json())

        @server.routes.get("no-slash")
        async def bad(request: web.Request) -> web.Response:
            return web.Response()

        @server.routes.get("/queue")
        async def shadow(request: web.Request) -> web.Response:
            return web.json_response("mine")

        server.routes.static("/pack-files", tmp_path)

    async def test(site: Site) -> None:
        for prefix in ("", "/api"):
            assert await site.json("GET", prefix + "/pack/a") == "a"
            assert await site.json("POST", prefix + "/pack/x", json=[1]) == [1]
            assert list(await site.json("GET", prefix + "/queue")) == ["queue_running", "queue_pending"]
        async with site.http.get("/pack-files/x.txt") as answer:
            assert await answer.text() == "static"

    with_site(test, prepare=prepare)


def test_every_own_route_has_its_twin() -> None:
    async def test(site: Site) -> None:
        found: dict[str, set[str]] = {}
        for route in site.server.app.router.routes():
            if route.resource is not None and not isinstance(route.resource, web.StaticResource):
                found.setdefault(route.resource.canonical, set()).add(route.method)
        for path in ("/", "/ws", "/prompt", "/queue", "/queue/all", "/interrupt", "/free", "/history", "/history/{prompt_id}"):
            assert found[path] == found["/api" + path], path

    with_site(test)


def test_the_running_job_is_that_of_the_calling_code() -> None:
    server = PromptServer(Config(), NodeRegistry())
    assert (server.client_id, server.last_node_id, server.last_prompt_id) == (None, None, None)

    def in_a_job(prompt_id: str, client_id: str | None) -> tuple[Any, ...]:
        with entered(JobControl(prompt_id, client_id=client_id, node_id="7")):
            return server.client_id, server.last_node_id, server.last_prompt_id

    assert contextvars.copy_context().run(in_a_job, "p", "c") == ("c", "7", "p")
    assert contextvars.copy_context().run(in_a_job, "q", None) == (None, "7", "q")


def test_the_counter_can_be_read_and_set_before_and_after_the_lanes_are_there() -> None:
    def prepare(server: PromptServer) -> None:
        assert server.number == 0
        server.number += 5

    async def test(site: Site) -> None:
        assert site.server.number == 5
        assert (await site.json("POST", "/prompt", json=graph()))["number"] == 5
        site.server.number = 9
        assert (await site.json("POST", "/prompt", json=graph()))["number"] == 9

    with_site(test, prepare=prepare)


def test_binary_events_and_progress_text() -> None:
    async def test(site: Site) -> None:
        a, b = await connect(site, "a"), await connect(site, "b")
        site.server.send_sync(BinaryEventTypes.PREVIEW_IMAGE, b"\0\0\0\1x", "a")
        site.server.send_sync(99, b"own kind")
        site.server.send_progress_text("hi", "3", "b")
        with entered(JobControl("p", client_id="a")):
            site.server.send_progress_text("mine", "3")
        site.server.send_progress_text("all", "3")
        await site.server.send("own-event", {"n": 1}, "b")
        everybody = [b"\0\0\0\x63own kind", b"\0\0\0\3\0\0\0\x013all"]
        got_a, got_b = await received(site, a, b)
        assert got_a == [b"\0\0\0\1\0\0\0\1x", everybody[0], b"\0\0\0\3\0\0\0\x013mine", everybody[1]]
        assert got_b == [everybody[0], b"\0\0\0\3\0\0\0\x013hi", everybody[1], ("own-event", {"n": 1})]

    with_site(test)


def test_events_before_the_start_and_after_the_stop_go_nowhere() -> None:
    server = PromptServer(Config(), NodeRegistry())
    server.send_sync("early", {})
    assert server.sockets == {}


def test_the_queue_that_packs_know() -> None:
    async def test(site: Site) -> None:
        queue = site.server.prompt_queue
        for prompt_id in ("run", "wait1", "wait2"):
            if prompt_id == "run":
                site.house.script.gate(prompt_id)
            body = {"prompt": graph(), "prompt_id": prompt_id, "client_id": "c", "extra_data": {"api_key_comfy_org": "KEY"}}
            await site.json("POST", "/prompt", json=body, headers=ON_0)
        await site.wait(site.house.wait_started, "run")
        assert queue.get_tasks_remaining() == 3
        running, waiting = queue.get_current_queue()
        assert running == [(0, "run", graph(), {"client_id": "c"}, ["1"])]
        assert [item[1] for item in waiting] == [item[1] for item in queue.queue] == ["wait1", "wait2"]
        assert queue.get_current_queue_volatile() == (running, waiting)
        with entered(JobControl("run")):
            assert list(queue.currently_running) == ["run"]
            queue.put((-1, "run", graph("again"), {"client_id": "c"}, ["1"], {"more": 1}))
        with entered(JobControl("another")):
            assert queue.currently_running == {}
        again = queue.queue[0]
        assert (again[0], again[2], again[3]) == (-1, graph("again"), {"client_id": "c", "more": 1})
        assert again[1] != "run"
        row = site.house.scheduler.queue(None).pending[0]
        assert row.job.secrets == {"api_key_comfy_org": "KEY"}
        assert queue.delete_queue_item(lambda item: item[1] == "wait1")
        assert not queue.delete_queue_item(lambda item: item[1] == "wait1")
        queue.wipe_queue()
        assert queue.queue == []
        site.house.open("run")
        await site.wait(site.house.wait_ended, "run")
        assert list(queue.history) == ["run"]
        assert queue.get_history("run", map_function=lambda record: record["prompt"][1]) == {"run": "run"}
        assert queue.get_history("nope") == {}
        queue.delete_history_item("run")
        assert queue.get_history(max_items=5) == {}
        queue.wipe_history()
        with queue.mutex:
            queue.set_flag("unload_models", True)
            queue.set_flag("other", True)
        assert queue.get_flags() == {}

    with_site(test, lanes=1)


def test_a_taken_port_ends_the_start_with_clear_words() -> None:
    async def run() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            server = PromptServer(Config(port=port), NodeRegistry())
            with pytest.raises(ConfigError, match=rf"Port {port} on 127\.0\.0\.1 is taken"):
                await server.start()
            await server.stop()

    asyncio.run(run())


def test_an_address_of_another_machine_ends_the_start() -> None:
    async def run() -> None:
        server = PromptServer(Config(port=0, listen=("203.0.113.9",)), NodeRegistry())
        with pytest.raises(ConfigError, match=r"Cannot listen on 203\.0\.113\.9"):
            await server.start()

    asyncio.run(run())


def test_every_address_gets_the_same_port_and_a_ready_line(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        server = PromptServer(Config(port=0, listen=("127.0.0.1", "127.0.0.2")), NodeRegistry())
        with caplog.at_level(logging.INFO):
            await server.start()
        for address in ("127.0.0.1", "127.0.0.2"):
            assert f"To see the GUI go to: http://{address}:{server.port}" in caplog.messages
            _, writer = await asyncio.open_connection(address, server.port)
            writer.close()
            await writer.wait_closed()
        await server.stop()
        await server.stop()

    asyncio.run(run())


def test_ready_lines_write_ipv6_in_brackets_and_https() -> None:
    config = Config(listen=("0.0.0.0", "::"), tls_keyfile="k", tls_certfile="c")
    assert ready_lines(config, 8188)[1:] == ["To see the GUI go to: https://0.0.0.0:8188", "To see the GUI go to: https://[::]:8188"]


@pytest.mark.parametrize(
    ("address", "url"),
    [("0.0.0.0", "http://127.0.0.1:1"), ("::", "http://[::1]:1"), ("box", "http://box:1"), ("10.0.0.0", "http://10.0.0.0:1")],
)
def test_the_browser_is_sent_to_an_address_of_this_machine(address: str, url: str) -> None:
    assert browser_url(Config(listen=(address, "127.0.0.1")), 1) == url


def test_auto_launch_opens_the_browser_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    done = threading.Event()

    def open_browser(url: str) -> bool:
        opened.append(url)
        done.set()
        return True

    monkeypatch.setattr(server_module.webbrowser, "open", open_browser)

    async def test(site: Site) -> None:
        assert await asyncio.to_thread(done.wait, 20)
        assert opened == [site.url]

    with_site(test, auto_launch=True)


def test_tls_files_that_do_not_load_end_the_start(tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_text("no certificate")

    async def run() -> None:
        config = Config(port=0, tls_keyfile=str(tmp_path / "absent"), tls_certfile=str(tmp_path / "c.pem"))
        with pytest.raises(ConfigError, match="--tls-certfile"):
            await PromptServer(config, NodeRegistry()).start()

    asyncio.run(run())


def test_https_with_both_files(tmp_path: Path) -> None:
    key, cert = tmp_path / "k.pem", tmp_path / "c.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(cert), "-subj", "/CN=localhost"]
    try:
        subprocess.run(make, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs the openssl program")

    async def run() -> None:
        import aiohttp

        config = replace(Config(port=0), tls_keyfile=str(key), tls_certfile=str(cert), dont_print_server=True)
        server = PromptServer(config, NodeRegistry())
        await server.start()
        async with aiohttp.ClientSession() as http, http.get(f"https://127.0.0.1:{server.port}/health", ssl=False) as answer:
            assert await answer.json() == {"status": "ok"}
        await server.stop()

    asyncio.run(run())
