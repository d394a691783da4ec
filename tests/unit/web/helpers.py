"""A served PromptServer over the lanes' doubles, for tests that speak HTTP and websocket to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from comfy.config import Config
from comfy.nodes.registry import NodeRegistry
from comfy_execution.events import Event
from server import PromptServer
from tests.unit.lanes.fakes import House


class Note:
    """An output node with one literal."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "test", "show", (), True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"text": ("STRING", {"default": ""}), "n": ("INT", {"default": 1, "min": 0, "max": 9})}}

    def show(self, text: str, n: int) -> dict[str, Any]:
        return {"ui": {"text": [text] * n}}


def graph(text: str = "hi", n: Any = 1) -> dict[str, Any]:
    """A workflow with one Note."""
    return {"1": {"class_type": "Note", "inputs": {"text": text, "n": n}}}


@dataclass
class Site:
    """One served server and a client of it."""

    server: PromptServer
    house: House
    http: aiohttp.ClientSession
    url: str

    async def json(self, method: str, path: str, status: int = 200, **kwargs: Any) -> Any:
        """The JSON answer, its status and media type checked."""
        async with self.http.request(method, path, **kwargs) as answer:
            text = await answer.text()
            assert answer.status == status, f"{method} {path}: {answer.status} {text[:300]}"
            assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
            return json.loads(text, parse_constant=lambda name: (_ for _ in ()).throw(ValueError(name)))

    async def error(self, method: str, path: str, status: int = 400, **kwargs: Any) -> dict[str, Any]:
        """The `error` member of a refusal, its shape checked."""
        body = await self.json(method, path, status, **kwargs)
        assert body.keys() == {"error", "node_errors"}
        assert body["error"].keys() == {"type", "message", "details", "extra_info"}
        error: dict[str, Any] = body["error"]
        return error

    async def empty(self, method: str, path: str, status: int = 200, **kwargs: Any) -> None:
        """An answer with a status and nothing else."""
        async with self.http.request(method, path, **kwargs) as answer:
            assert (answer.status, await answer.read()) == (status, b""), await answer.text()
            assert answer.headers["Content-Length"] == "0"
            assert "Content-Type" not in answer.headers

    async def wait(self, function: Callable[..., None], *args: Any) -> None:
        """A blocking wait of the House, off the loop."""
        await asyncio.to_thread(function, *args)

    def both_sinks(self, event: Event) -> None:
        """Let the House see what the websockets get."""
        self.server.hub.publish(event)
        self.house._sink(event)


def front_end(tmp_path: Path) -> Path:
    """A web root of three files."""
    root = tmp_path / "web"
    (root / "assets").mkdir(parents=True)
    (root / "index.html").write_text("<!doctype html><title>front</title>")
    (root / "assets" / "a.js").write_text("export {}")
    (root / "a.png").write_bytes(b"\x89PNG")
    return root


def with_site(
    test: Callable[[Site], Awaitable[None]],
    *,
    lanes: int = 2,
    multi_gpu: bool = True,
    capacity: int = 100,
    prepare: Callable[[PromptServer], None] = lambda server: None,
    **config: Any,
) -> None:
    """Serve, run `test(site)` and close everything."""
    registry = NodeRegistry()
    registry.add({"Note": Note}, module="nodes")
    settings = replace(Config(port=0, dont_print_server=True), **config)

    async def run() -> None:
        async with AsyncExitStack() as stack:
            house = stack.enter_context(House(lanes, capacity))
            house.scheduler.multi_gpu = multi_gpu
            server = PromptServer(settings, registry)
            prepare(server)
            server.attach(house.scheduler)
            await server.start()
            stack.push_async_callback(server.stop)
            url = f"http://127.0.0.1:{server.port}"
            http = await stack.enter_async_context(aiohttp.ClientSession(url))
            site = Site(server, house, http, url)
            house.scheduler.set_sink(site.both_sinks)
            await asyncio.wait_for(test(site), 30)

    asyncio.run(run())
