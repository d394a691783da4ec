"""A small server with the real middlewares and the routes of the file modules."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from aiohttp import FormData
from aiohttp.test_utils import TestClient, TestServer
from PIL import Image

from comfy.nodes.registry import NodeRegistry
from comfy.web import middleware
from comfy.web.app import add_table
from tests.unit.folders.helpers import folders_in


def make_server(base: Path, *modules: Any, **settings: Any) -> SimpleNamespace:
    folders = folders_in(base, **settings)
    sent: list[tuple[Any, ...]] = []
    return SimpleNamespace(
        config=folders.config,
        folders=folders,
        registry=NodeRegistry(),
        app=None,
        modules=modules,
        user_manager=None,
        web_root=None,
        sockets={},
        sent=sent,
        send_sync=lambda *message: sent.append(message),
    )


@contextlib.asynccontextmanager
async def serving(server: SimpleNamespace) -> AsyncIterator[TestClient[Any, Any]]:
    server.app = middleware.build_app(server.config)  # an application lives in one event loop
    for module in server.modules:
        add_table(server.app, module.routes(server))
    async with TestClient(TestServer(server.app)) as client:
        yield client


def talk(server: SimpleNamespace, story: Callable[[TestClient[Any, Any]], Awaitable[Any]]) -> Any:
    """Run `story(client)` against the server and give back what it returns."""

    async def run() -> Any:
        async with serving(server) as client:
            return await story(client)

    return asyncio.run(run())


def png(width: int = 4, height: int = 3, mode: str = "RGB", colour: Any = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    rng = np.random.default_rng(7)
    pixels = rng.integers(0, 256, (height, width, len(mode)), np.uint8)
    image = (
        Image.fromarray(pixels.squeeze(-1) if len(mode) == 1 else pixels) if colour is None else Image.new(mode, (width, height), colour)
    )
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def form(data: bytes | str = b"x", name: str | None = "a.png", **fields: str) -> FormData:
    body = FormData(quote_fields=False)
    if name is None:
        body.add_field("image", data)
    else:
        body.add_field("image", data, filename=name, content_type="application/octet-stream")
    for key, value in fields.items():
        body.add_field(key, value)
    return body
