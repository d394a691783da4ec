"""Clients of a server whose lanes run real graphs: the orders of websocket.md section 4, isolation, interrupts, routing."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import aiohttp
from PIL import Image

import comfy.control
from comfy.config import Config
from comfy.nodes.registry import NodeRegistry
from comfy_execution.lane import Lane
from comfy_execution.queue import MemoryJobStore, PromptQueue
from comfy_execution.scheduler import Scheduler
from execution import PromptExecutor
from server import PromptServer
from tests.unit.lanes.fakes import FakeDevice


class Make:
    """A value, from nothing."""

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "make", ("THING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"seed": ("INT", {"default": 0})}}

    def make(self, seed: int) -> tuple[int]:
        return (seed,)


class Steps:
    """Reports steps with previews; waits before each one while its gate is shut."""

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "run", ("THING",)
    gates: ClassVar[dict[str, threading.Semaphore]] = {}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"thing": ("THING",), "steps": ("INT", {"default": 2}), "gate": ("STRING", {"default": ""})}}

    def run(self, thing: int, steps: int, gate: str) -> tuple[int]:
        control = comfy.control.current()
        assert control is not None
        for step in range(steps):
            if gate:
                assert self.gates[gate].acquire(timeout=20)
            control.progress(step + 1, steps, ("JPEG", Image.new("RGB", (8, 4)), 16), None)
        return (thing,)


class Show:
    """Shows a value, or fails."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "test", "show", (), True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"thing": ("THING",), "fail": ("BOOLEAN", {"default": False})}}

    def show(self, thing: int, fail: bool) -> dict[str, Any]:
        if fail:
            raise ValueError("it was asked to")
        return {"ui": {"text": [str(thing)]}}


class ShowToo(Show):
    """Another output class: equal nodes of one class would run once."""


def node(cls: type, **inputs: Any) -> dict[str, Any]:
    return {"class_type": cls.__name__, "inputs": inputs}


def two_shows(seed: int, fail: bool = False) -> dict[str, Any]:
    return {"1": node(Make, seed=seed), "2": node(Show, thing=["1", 0], fail=fail), "3": node(ShowToo, thing=["1", 0], fail=False)}


def stepping(seed: int, steps: int = 2, gate: str = "") -> dict[str, Any]:
    return {
        "0": node(Make, seed=seed),
        "1": node(Steps, thing=["0", 0], steps=steps, gate=gate),
        "2": node(Show, thing=["1", 0], fail=False),
    }


@dataclass
class Client:
    """One websocket and what it got."""

    http: aiohttp.ClientSession
    sid: str
    ws: aiohttp.ClientWebSocketResponse
    log: list[Any] = field(default_factory=list)

    async def post(self, prompt: dict[str, Any], prompt_id: str, status: int = 200, **headers: str) -> Any:
        body = {"prompt": prompt, "prompt_id": prompt_id, "client_id": self.sid}
        async with self.http.post("/prompt", json=body, headers=headers) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json()

    async def next(self) -> Any:
        message = await self.ws.receive(20)
        if message.type is aiohttp.WSMsgType.BINARY:
            self.log.append(message.data)
        else:
            assert message.type is aiohttp.WSMsgType.TEXT, message
            value = json.loads(message.data)
            self.log.append((value["type"], value["data"]))
        return self.log[-1]

    async def until(self, prompt_id: str, event: str = "executing", **data: Any) -> None:
        """Read until that event of the job; its end, when no other is named."""
        wanted = {"prompt_id": prompt_id, **({"node": None} if event == "executing" and not data else data)}
        while True:
            got = await self.next()
            if isinstance(got, tuple) and got[0] == event and wanted.items() <= got[1].items():
                return


def short(entry: Any) -> str:
    """An event in the contract's shorthand."""
    if isinstance(entry, bytes):
        return f"binary {int.from_bytes(entry[:4], 'big')}"
    name, data = entry
    if name == "status":
        return f"status {data['status']['exec_info']['queue_remaining']}"
    if name == "progress_state":
        return "PS{" + ", ".join(f"{key}:{state['state'][0]} {state['value']}/{state['max']}" for key, state in data["nodes"].items()) + "}"
    if name == "progress":
        return f"progress {data['node']} {data['value']}/{data['max']}"
    if name in ("executing", "executed"):
        return f"{name} {data['node']}"
    return f"{name} {data['nodes']}" if name == "execution_cached" else str(name)


@dataclass
class Site:
    """The server, and a way to become its client."""

    url: str
    scheduler: Scheduler
    stack: AsyncExitStack

    async def run(self, client: Client, prompt: dict[str, Any], prompt_id: str) -> list[str]:
        """Post while the lane is kept from taking the job, then let it run: its events in shorthand."""
        client.log.clear()
        posted = threading.Event()
        self.scheduler.all_lanes[0].queue.put_chore(partial(_wait, posted))
        await client.post(prompt, prompt_id)
        posted.set()
        await client.until(prompt_id)
        return [short(entry) for entry in client.log]

    async def client(self, sid: str, metadata: bool = False) -> Client:
        http = await self.stack.enter_async_context(aiohttp.ClientSession(self.url))
        client = Client(http, sid, await http.ws_connect("/ws", params={"clientId": sid}))
        if metadata:
            await client.ws.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
            await client.next()
        await client.next()
        client.log.clear()
        return client


def _wait(event: threading.Event) -> None:
    assert event.wait(20)


def with_server(test: Callable[[Site], Awaitable[None]], lanes: int = 1) -> None:
    registry = NodeRegistry()
    registry.add({cls.__name__: cls for cls in (Make, Steps, Show, ShowToo)}, module="nodes")

    async def run() -> None:
        server = PromptServer(Config(port=0, dont_print_server=True), registry)
        store = MemoryJobStore()
        scheduler = Scheduler(store, multi_gpu=lanes > 1)
        for index in range(lanes):
            make = partial(PromptExecutor, registry, index)
            scheduler.add_lane(Lane(index, FakeDevice(), PromptQueue(index, store), make, scheduler.handle))
        server.attach(scheduler)
        await server.start()
        scheduler.start()
        try:
            async with AsyncExitStack() as stack:
                await asyncio.wait_for(test(Site(f"http://127.0.0.1:{server.port}", scheduler, stack)), 60)
        finally:
            await asyncio.to_thread(scheduler.close, 20)
            await server.stop()

    asyncio.run(run())


def test_orders_of_a_first_and_a_repeated_run() -> None:
    async def test(site: Site) -> None:
        client = await site.client("a")
        assert await site.run(client, two_shows(1), "first") == [
            "status 1",
            "status 1",
            "execution_start",
            "execution_cached []",
            "PS{1:r 0.0/1.0}",
            "executing 1",
            "PS{1:f 1.0/1.0}",
            "PS{1:f 1.0/1.0, 2:r 0.0/1.0}",
            "executing 2",
            "executed 2",
            "PS{1:f 1.0/1.0, 2:f 1.0/1.0}",
            "PS{1:f 1.0/1.0, 2:f 1.0/1.0, 3:r 0.0/1.0}",
            "executing 3",
            "executed 3",
            "PS{1:f 1.0/1.0, 2:f 1.0/1.0, 3:f 1.0/1.0}",
            "execution_success",
            "status 0",
            "executing None",
        ]
        assert await site.run(client, two_shows(1), "again") == [
            "status 1",
            "status 1",
            "execution_start",
            "execution_cached ['1', '2', '3']",
            "executed 2",
            "PS{2:f 1/1}",
            "executed 3",
            "PS{2:f 1/1, 3:f 1/1}",
            "execution_success",
            "status 0",
            "executing None",
        ]

    with_server(test)


def test_progress_with_previews_for_both_kinds_of_client() -> None:
    async def test(site: Site) -> None:
        for sid, metadata in (("old", False), ("new", True)):
            client = await site.client(sid, metadata)
            await client.post(stepping(seed=ord(sid[0])), sid)
            await client.until(sid)
            start = [short(entry) for entry in client.log].index("executing 1")
            seen = [short(entry) for entry in client.log[start + 1 : start + 8]]
            done = "PS{0:f 1.0/1.0, 1:"
            if metadata:
                each = [[f"{done}r {i}/2}}", "binary 4", f"progress 1 {i}/2"] for i in (1, 2)]
            else:
                each = [[f"{done}r {i}/2}}", f"progress 1 {i}/2", "binary 1"] for i in (1, 2)]
            assert seen == [*each[0], *each[1], f"{done}f 2/2}}"]

    with_server(test)


def test_an_error_ends_the_job_and_the_lane_goes_on() -> None:
    async def test(site: Site) -> None:
        client = await site.client("a")
        await client.post(two_shows(2, fail=True), "bad")
        await client.until("bad")
        assert [short(entry) for entry in client.log][-4:] == ["executing 2", "execution_error", "status 0", "executing None"]
        (error,) = [data for name, data in client.log if name == "execution_error"]
        assert (error["node_id"], error["exception_type"], error["exception_message"]) == ("2", "ValueError", "it was asked to\n")
        await client.post(two_shows(3), "good")
        await client.until("good")
        assert "execution_success" in [short(entry) for entry in client.log]

    with_server(test)


def test_an_interrupt_by_id_stops_that_job_at_its_next_report_and_no_other() -> None:
    async def test(site: Site) -> None:
        Steps.gates = {"a": threading.Semaphore(1), "b": threading.Semaphore(1)}
        clients = {sid: await site.client(sid) for sid in "ab"}
        for index, (sid, client) in enumerate(clients.items()):
            answer = await client.post(stepping(10 + index, steps=3, gate=sid), f"job-{sid}", **{"X-TARGET-GPU": str(index)})
            assert answer["gpu_id"] == index
        for sid, client in clients.items():
            await client.until(f"job-{sid}", "progress", value=1)
        async with clients["a"].http.post("/interrupt", json={"prompt_id": "job-a"}) as answer:
            assert answer.status == 200
        for gate in Steps.gates.values():
            gate.release(2)
        for sid, client in clients.items():
            await client.until(f"job-{sid}")
        ends = {sid: [short(entry) for entry in client.log if short(entry).startswith("execution_")][-1] for sid, client in clients.items()}
        assert ends == {"a": "execution_interrupted", "b": "execution_success"}
        steps = {sid: sum(short(entry).startswith("progress 1") for entry in client.log) for sid, client in clients.items()}
        assert steps == {"a": 1, "b": 3}
        for sid, client in clients.items():
            other = "job-b" if sid == "a" else "job-a"
            assert not [entry for entry in client.log if other in str(entry)]

    with_server(test, lanes=2)


def test_a_client_that_reconnects_in_mid_job_is_told_its_node_and_gets_the_rest() -> None:
    async def test(site: Site) -> None:
        Steps.gates = {"g": threading.Semaphore(1)}
        first = await site.client("me")
        await first.post(stepping(20, steps=2, gate="g"), "job")
        await first.until("job", "progress", value=1)
        again = await site.client("me")
        assert await again.next() == ("executing", {"node": "1", "prompt_id": "job"})
        await first.ws.close()
        Steps.gates["g"].release(1)
        await again.until("job")
        assert short(again.log[-3]) == "execution_success"

    with_server(test)


def test_an_anonymous_jobs_progress_goes_to_all_and_its_rest_to_nobody() -> None:
    async def test(site: Site) -> None:
        client = await site.client("a")
        async with client.http.post("/prompt", json=stepping(30)) as answer:
            assert answer.status == 200
        while "status 0" not in [short(entry) for entry in client.log]:
            await client.next()
        names = {entry[0] for entry in client.log if isinstance(entry, tuple)}
        assert names == {"status", "progress", "progress_state"}
        assert [short(entry) for entry in client.log].count("binary 1") == 2

    with_server(test)
