"""Queues, interrupting and freeing: for one lane with X-TARGET-GPU, else for all (contract: http-api.md section 4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from aiohttp import web

from comfy import jsonio
from comfy.errors import InvalidJson
from comfy.web.body import as_object, ids_of, parse_json, read_body, read_object
from comfy.web.errors import json_bytes, json_response
from comfy.web.lanes import lane_facts
from comfy.web.target import target_of
from comfy_execution.queue import JobRow
from comfy_execution.views import LaneView

if TYPE_CHECKING:
    from server import PromptServer


def _rows(rows: Iterable[JobRow]) -> Iterator[bytes]:
    """A JSON array of jobs in pieces, from the JSON that each was given when it was accepted."""
    yield b"["
    for i, row in enumerate(rows):
        if i:
            yield b", "
        yield row.json
    yield b"]"


def _queue(running: Iterable[JobRow], pending: Iterable[JobRow], more: dict[str, Any] | None = None) -> Iterator[bytes]:
    """`{"queue_running": […], "queue_pending": […], …more}` in pieces, for one join: a long queue is copied once."""
    yield b'{"queue_running": '
    yield from _rows(running)
    yield b', "queue_pending": '
    yield from _rows(pending)
    yield b", " + jsonio.dump_bytes(more)[1:] if more else b"}"


def queue_json(running: Iterable[JobRow], pending: Iterable[JobRow], more: dict[str, Any] | None = None) -> bytes:
    """`{"queue_running": […], "queue_pending": […], …more}`."""
    return b"".join(_queue(running, pending, more))


def all_queues(views: list[LaneView], details: bool) -> bytes:
    """The answer of `/queue/all`; without details the jobs themselves are left out."""
    pieces = [b'{"queues": [']
    for i, view in enumerate(views):
        facts = lane_facts(view)
        pieces.append(b", " if i else b"")
        pieces.extend(_queue(view.running, view.pending, facts) if details else (jsonio.dump_bytes(facts),))
    totals = {"total_running": sum(view.running_count for view in views), "total_pending": sum(view.pending_count for view in views)}
    pieces.append(b"], " + jsonio.dump_bytes(totals)[1:])
    return b"".join(pieces)


async def _tolerant_body(request: web.Request) -> dict[str, Any]:
    """The body of /interrupt: none, null and what is no JSON count as `{}`; any other value than an object is refused."""
    try:
        value = parse_json(await read_body(request, request.client_max_size))
    except InvalidJson:
        return {}
    return {} if value is None else as_object(value)


def routes(server: PromptServer) -> web.RouteTableDef:
    """`/queue`, `/queue/all`, `/debug/queues`, `/interrupt`, `/free`."""
    table = web.RouteTableDef()

    @table.get("/queue")
    async def get_queue(request: web.Request) -> web.Response:
        lane = target_of(request, server)
        view = server.scheduler.queue(lane)
        return json_bytes(queue_json(view.running, view.pending, None if lane is None else {"gpu_id": lane}))

    @table.post("/queue")
    async def post_queue(request: web.Request) -> web.Response:
        lane = target_of(request, server)
        body = await read_object(request)
        ids = ids_of(body, "delete")  # before clearing: a body with a bad field changes nothing
        if body.get("clear"):
            server.scheduler.clear(lane)
        if ids:
            server.scheduler.delete(ids, lane)
        return web.Response()

    @table.get("/queue/all")
    async def get_all(request: web.Request) -> web.Response:
        details = request.query.get("details") != "0"
        return json_bytes(all_queues(server.scheduler.lanes(jobs=details), details))

    @table.get("/debug/queues")
    async def debug_queues(request: web.Request) -> web.Response:
        if not server.scheduler.multi_gpu:
            return json_response({"mode": "single-gpu"})
        views = server.scheduler.lanes()
        queues = [{"gpu_id": view.lane.index, "queued": view.pending_count, "running": view.running_count} for view in views]
        return json_response({"mode": "multi-gpu", "num_gpus": len(views), "queues": queues})

    @table.post("/interrupt")
    async def interrupt(request: web.Request) -> web.Response:
        lane = target_of(request, server)
        prompt_id = (await _tolerant_body(request)).get("prompt_id")
        if prompt_id is None:
            server.scheduler.interrupt(None, lane)
        else:
            server.scheduler.interrupt(str(prompt_id), None)  # that job wherever it is, whatever port the client came by
        return web.Response()

    @table.post("/free")
    async def free(request: web.Request) -> web.Response:
        lane = target_of(request, server)
        body = await read_object(request)
        unload, drop = bool(body.get("unload_models")), bool(body.get("free_memory"))
        server.scheduler.free(lane, unload_models=unload, free_memory=drop)
        return web.Response()

    return table
