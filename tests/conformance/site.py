"""A real server process and its clients: HTTP answers as they came over the wire, websockets as lists of events."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import yarl
from multidict import CIMultiDict, CIMultiDictProxy

ROOT = Path(__file__).resolve().parents[2]
PACKS = ROOT / "tests" / "data" / "packs"
START_S = 110.0
ANSWER_S = 60.0

T = TypeVar("T")


class Loop:
    """An event loop in a thread of its own, so that tests are plain functions."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="clients", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float = ANSWER_S) -> T:
        """What `work` gives; raises TimeoutError after `timeout_s`."""
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout_s), self.loop).result()

    def close(self) -> None:
        """Stop the loop."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    reason: str
    headers: CIMultiDictProxy[str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON, bare NaN refused."""
        assert self.headers["Content-Type"] == "application/json; charset=utf-8", self
        return json.loads(self.body, parse_constant=_refuse)

    def error(self) -> str:
        """The `type` of a typed error."""
        return str(self.json()["error"]["type"])


def _refuse(constant: str) -> None:
    raise ValueError(f"bare {constant} in an answer")


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """A node of a prompt."""
    return {"class_type": class_type, "inputs": inputs}


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


class Tab:
    """One websocket and what it got: (name, data) pairs and bytes, in order."""

    def __init__(self, site: Site, sid: str, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.site, self.sid, self.ws = site, sid, ws
        self.log: list[Any] = []

    def next(self) -> Any:
        """The next event; fails when none comes."""
        message = self.site.loop.run(self.ws.receive())
        if message.type is aiohttp.WSMsgType.BINARY:
            self.log.append(message.data)
        else:
            assert message.type is aiohttp.WSMsgType.TEXT, message
            value = json.loads(message.data, parse_constant=_refuse)
            assert set(value) == {"type", "data"}
            self.log.append((value["type"], value["data"]))
        return self.log[-1]

    def until(self, prompt_id: str, event: str = "executing", **data: Any) -> None:
        """Read until that event of the job; its end, when no other is named."""
        wanted = {"prompt_id": prompt_id, **({"node": None} if event == "executing" and not data else data)}
        while True:
            got = self.next()
            if isinstance(got, tuple) and got[0] == event and wanted.items() <= got[1].items():
                return

    def until_status(self, remaining: int) -> None:
        """Read until a `status` tells so many jobs."""
        while short(self.next()) != f"status {remaining}":
            pass

    def post(self, prompt: dict[str, Any], prompt_id: str | None = None, lane: int | None = None, **more: Any) -> str:
        """Queue a prompt as this client; returns its id."""
        body = {"prompt": prompt, "client_id": self.sid, **({} if prompt_id is None else {"prompt_id": prompt_id}), **more}
        headers = {} if lane is None else {"X-TARGET-GPU": str(lane)}
        answer = self.site.request("POST", "/prompt", json=body, headers=headers)
        assert answer.status == 200, answer.body
        return str(answer.json()["prompt_id"])

    def run(self, prompt: dict[str, Any], prompt_id: str | None = None, lane: int | None = None) -> list[str]:
        """Queue a prompt and read until it is over: its events in shorthand, and in `log`."""
        self.log.clear()
        self.until(self.post(prompt, prompt_id, lane))
        return [short(entry) for entry in self.log]

    def data(self, event: str) -> list[Any]:
        """The data of all events of that name."""
        return [entry[1] for entry in self.log if isinstance(entry, tuple) and entry[0] == event]

    def send(self, value: Any) -> None:
        """Send JSON, or text as it is."""
        self.site.loop.run(self.ws.send_str(value if isinstance(value, str) else json.dumps(value)))

    def drain(self) -> list[Any]:
        """All events that the server has sent so far and nobody has read; the pack's own event ends them."""
        begin = len(self.log)
        assert self.site.post(f"/probe/say/{self.sid}").status == 200
        while self.next() != ("probe", {}):
            pass
        return self.log[begin:-1]

    def close(self) -> None:
        """Close the socket."""
        self.site.loop.run(self.ws.close())


@dataclass
class Site:
    """A running server over a base directory of its own."""

    process: subprocess.Popen[bytes]
    base: Path
    url: str
    lanes: int
    multi: bool
    loop: Loop
    session: aiohttp.ClientSession
    tabs: list[Tab] = field(default_factory=list)

    def request(
        self, method: str, path: str, *, json: Any = None, data: Any = None, headers: dict[str, str] | Sequence[tuple[str, str]] = ()
    ) -> Answer:
        """Send a request with the path as it is written; redirects are not followed, bodies not decompressed."""

        async def work() -> Answer:
            url = yarl.URL(self.url + path, encoded=True)
            body, sent = io.BytesIO(data) if isinstance(data, bytes) else data, CIMultiDict(headers)
            if isinstance(data, aiohttp.FormData):
                body = data()
                sent["Content-Type"] = body.headers["Content-Type"]  # with its boundary
            async with self.session.request(method, url, json=json, data=body, headers=sent, allow_redirects=False) as answer:
                return Answer(answer.status, answer.reason or "", answer.headers, await answer.read())

        return self.loop.run(work())

    def get(self, path: str, **headers: str) -> Answer:
        """GET; `Accept_Encoding=…` becomes a header."""
        return self.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def post(self, path: str, json: Any = None, **headers: str) -> Answer:
        """POST of JSON."""
        return self.request("POST", path, json=json, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def tab(self, sid: str | None = None, metadata: bool = False, path: str = "/ws") -> Tab:
        """A websocket whose first messages are read; closed at the end of the test."""

        async def work() -> aiohttp.ClientWebSocketResponse:
            params = {} if sid is None else {"clientId": sid}
            return await self.session.ws_connect(self.url + path, params=params, max_msg_size=0)

        tab = Tab(self, sid or "", self.loop.run(work()))
        self.tabs.append(tab)
        name, data = tab.next()
        assert (name, set(data)) == ("status", {"status", "sid"})
        tab.sid = data["sid"]
        if metadata:
            tab.send({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
            assert tab.next()[0] == "feature_flags"
        return tab

    def record(self, prompt_id: str) -> dict[str, Any]:
        """The history record of a finished job."""
        return dict(self.get("/history/" + quote(prompt_id, safe="")).json()[prompt_id])

    def finish(self, prompt_ids: Sequence[str], timeout_s: float = 110) -> dict[str, Any]:
        """The history records of these jobs, once all are over."""
        until, records = time.monotonic() + timeout_s, dict[str, Any]()
        while len(records) < len(set(prompt_ids)):
            assert time.monotonic() < until, f"{len(records)} of {len(prompt_ids)} jobs are over"
            known = self.get("/history").json()
            records = {prompt_id: known[prompt_id] for prompt_id in prompt_ids if prompt_id in known}
            time.sleep(0.02)
        return records

    def open(self, gate: str, n: int = 1) -> None:
        """Let `n` steps pass the gate of a probe node."""
        assert self.request("POST", f"/probe/open/{gate}?n={n}").status == 200

    def until_runs(self, label: str, n: int = 1) -> None:
        """Wait until probe nodes with that label have run so often."""
        until = time.monotonic() + ANSWER_S
        while self.get("/probe/runs").json().get(label, 0) < n:
            assert time.monotonic() < until, label
            time.sleep(0.01)

    def calm(self) -> None:
        """Close all tabs and leave no job behind."""
        for tab in self.tabs:
            tab.close()
        self.tabs.clear()
        self.post("/queue", {"clear": True})
        self.post("/interrupt", {})
        until = time.monotonic() + ANSWER_S
        while self.get("/prompt").json()["exec_info"]["queue_remaining"]:
            assert time.monotonic() < until
            time.sleep(0.01)


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until_ready(url: str, process: subprocess.Popen[bytes], output: Path) -> None:
    """Wait until `/ready` says 200; fails with the server's words when it ends or takes too long."""
    until = time.monotonic() + START_S
    while True:
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url + "/ready", timeout=5) as answer:
            if answer.status == 200:
                return
        assert process.poll() is None, output.read_text(errors="replace")
        assert time.monotonic() < until, output.read_text(errors="replace")
        time.sleep(0.05)


@contextlib.contextmanager
def serving(base: Path, lanes: int = 0, *flags: str, packs: Sequence[str] = ("probes",)) -> Iterator[Site]:
    """main.py over `base`; `lanes` 0 is the gate off. The server is stopped at the end, and its exit status must be 0."""
    for pack in packs:
        shutil.copytree(PACKS / pack, base / "custom_nodes" / pack, ignore=shutil.ignore_patterns("__pycache__"))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("COMFY_", "PYTHONWARN"))}
    env |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "COMFY_DRAIN_S": "5"}
    env |= {"COMFY_MULTI_GPU_SCHED": "1", "COMFY_NUM_GPUS": str(lanes)} if lanes else {}
    url, output = f"http://127.0.0.1:{free_port()}", base / "console"
    command = [sys.executable, "main.py", "--cpu", "--port", url.rpartition(":")[2], "--base-directory", str(base), *flags]
    with output.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT)
    loop = Loop()
    try:
        until_ready(url, process, output)
        session = loop.run(_session())
        try:
            yield Site(process, base, url, lanes or 1, lanes > 0, loop, session)
        finally:
            loop.run(session.close())
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, output.read_text(errors="replace")[-3000:]
    finally:
        process.kill()
        process.wait()
        loop.close()


async def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=("Accept-Encoding", "User-Agent", "Content-Type"))
