"""Checks a running server from outside, as an operator sees it; `quick_test.sh` calls this.

Prints a line per check, `PASS`, `FAIL` or `SKIP`, and exits 0 when no check failed, 1 when one did. Standard library
only, so that it runs from any machine that reaches the server; where the packages of the server are there too, it also looks
at the colours of the pictures. What must hold: the table in docs/architecture.md.
"""

from __future__ import annotations

import argparse
import copy
import http.client
import ipaddress
import json
import os
import random
import struct
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
REQUEST_TIMEOUT_S = 20.0
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


class CheckFailed(Exception):
    """A check does not hold; the text says what was seen."""


class CheckSkipped(Exception):
    """A check cannot be made from here; the text says why."""


class Server:
    """Requests to one server. Raises CheckFailed when it cannot be reached or does not answer JSON where it should."""

    def __init__(self, url: str) -> None:
        self.url = urllib.parse.urlsplit(url if "//" in url else f"http://{url}")
        self.base = self.url.path.rstrip("/")

    def request(self, method: str, path: str, body: Any = None, targets: Sequence[str] = ()) -> tuple[int, bytes]:
        """Status and body; each of `targets` becomes an X-TARGET-GPU header of its own."""
        kind = http.client.HTTPSConnection if self.url.scheme == "https" else http.client.HTTPConnection
        connection = kind(self.url.hostname or "127.0.0.1", self.url.port, timeout=REQUEST_TIMEOUT_S)
        data = b"" if body is None else json.dumps(body).encode()
        try:
            connection.putrequest(method, self.base + path)
            connection.putheader("Content-Length", str(len(data)))
            for target in targets:
                connection.putheader("X-TARGET-GPU", target)
            connection.endheaders(data)
            reply = connection.getresponse()
            return reply.status, reply.read()
        except (OSError, http.client.HTTPException) as error:
            raise CheckFailed(f"{method} {path}: {error or type(error).__name__}") from error
        finally:
            connection.close()

    def json(self, method: str, path: str, body: Any = None, targets: Sequence[str] = (), status: int = 200) -> Any:
        """The body as JSON, when the status is the expected one."""
        seen, data = self.request(method, path, body, targets)
        if seen != status:
            raise CheckFailed(f"{method} {path} answered {seen}, not {status}: {data[:300].decode(errors='replace')}")
        try:
            return json.loads(data)
        except ValueError as error:
            raise CheckFailed(f"{method} {path} did not answer JSON: {data[:100]!r}") from error

    def local_port(self) -> int | None:
        """The port when the server's address is one of this machine's loopback, else None."""
        host = self.url.hostname or ""
        try:
            local = host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            local = False
        return (self.url.port or (443 if self.url.scheme == "https" else 80)) if local else None


class QuickTest:
    """The checks, in order; later ones use what earlier ones learnt."""

    def __init__(self, server: Server, workflow: dict[str, Any], lanes: int | None, timeout_s: float) -> None:
        self.server = server
        self.workflow = workflow
        self.wanted = lanes
        self.timeout_s = timeout_s
        self.failed = 0
        self.lanes: list[int] = []
        #: lane -> the prompt that was sent there
        self.sent: dict[int, str] = {}

    def run(self) -> int:
        """All checks; 0 when none failed, else 1."""
        if self._check("server answers", self.answers) and self._check("every lane is in /queue/all", self.every_lane):
            self._check("every lane takes prompts", self.ready)
            for lane in self.lanes:
                self._check(f"a prompt for GPU {lane} is queued there", partial(self.routed, lane))
            for name, targets in self._bad_targets():
                self._check(f"X-TARGET-GPU {name} is refused", partial(self.refused, targets))
            for lane in self.sent:
                self._check(f"GPU {lane} finished its prompt and the picture is there", partial(self.picture, lane))
            self._check("one process serves all lanes", self.one_process)
        print(f"{self.failed} check(s) FAILED" if self.failed else "All checks passed.")
        return 1 if self.failed else 0

    def _check(self, name: str, check: Callable[[], str]) -> bool:
        try:
            word, text = "PASS", check()
        except CheckSkipped as skipped:
            word, text = "SKIP", str(skipped)
        except CheckFailed as failure:
            word, text = "FAIL", str(failure)
            self.failed += 1
        except Exception as error:  # an answer of an unexpected shape must read as a failure, not as a traceback
            word, text = "FAIL", f"unexpected answer: {type(error).__name__} {error}"
            self.failed += 1
        print(f"{word}  {name}{': ' if text else ''}{text}", flush=True)
        return word != "FAIL"

    def answers(self) -> str:
        self.server.json("GET", "/queue/all")
        if self.server.json("GET", "/debug/queues").get("mode") == "single-gpu":
            raise CheckFailed("the server runs in single-GPU mode; start it with COMFY_MULTI_GPU_SCHED=1 (./start_multi_gpu.sh does)")
        return self.server.url.geturl()

    def every_lane(self) -> str:
        """Lanes are 0 … n-1 with the counts that belong to them; n is what was asked for, else what /lanes says."""
        view = self.server.json("GET", "/queue/all")
        rows = view["queues"]
        self.lanes = [row["gpu_id"] for row in rows]
        wanted = self.wanted if self.wanted is not None else self._lanes_of_server()
        if self.lanes != list(range(wanted)):
            raise CheckFailed(f"gpu_id {self.lanes}, expected {list(range(wanted))}")
        for row in rows:
            for kind in ("running", "pending"):
                if not isinstance(row[f"queue_{kind}"], list) or row[f"{kind}_count"] < 0:
                    raise CheckFailed(f"the row of GPU {row['gpu_id']} has no usable queue_{kind} and {kind}_count")
        for kind in ("running", "pending"):
            if view[f"total_{kind}"] != sum(row[f"{kind}_count"] for row in rows):
                raise CheckFailed(f"total_{kind} is {view[f'total_{kind}']}, not the sum of the lanes")
        return f"{len(rows)} lane(s)"

    def ready(self) -> str:
        """No lane is paused, stalled or failed; its prompt would wait for ever."""
        status, data = self.server.request("GET", "/ready")
        told = json.loads(data)
        out = [f"GPU {lane['gpu_id']} is {lane['state']}" for lane in told["lanes"] if lane["state"] not in ("idle", "running")]
        if status != 200 or out:
            raise CheckFailed(f"/ready answered {status} {told['status']}{': ' if out else ''}{', '.join(out)}")
        return ""

    def _lanes_of_server(self) -> int:
        status, data = self.server.request("GET", "/lanes")
        lanes = json.loads(data) if status == 200 else []
        lanes = lanes.get("lanes", []) if isinstance(lanes, dict) else lanes
        return max(len(lanes), max(self.lanes, default=-1) + 1, 1)

    def routed(self, lane: int) -> str:
        reply = self.server.json("POST", "/prompt", {"prompt": self._prompt()}, targets=[str(lane)])
        if reply.get("node_errors"):
            raise CheckFailed(f"node_errors {json.dumps(reply['node_errors'])[:300]}")
        if reply.get("gpu_id") != lane:
            raise CheckFailed(f"the reply says gpu_id {reply.get('gpu_id')}")
        self.sent[lane] = reply["prompt_id"]
        return reply["prompt_id"]

    def _prompt(self) -> dict[str, Any]:
        """The workflow with a new seed, so that no lane answers from its cache."""
        prompt = copy.deepcopy(self.workflow)
        for node in prompt.values():
            for name in ("seed", "noise_seed"):
                if isinstance(node["inputs"].get(name), int):
                    node["inputs"][name] = random.randrange(2**32)
        return prompt

    def _bad_targets(self) -> Iterator[tuple[str, list[str]]]:
        yield f"{len(self.lanes)} (one past the last)", [str(len(self.lanes))]
        yield "-1", ["-1"]
        yield "abc", ["abc"]
        yield "sent twice", ["0", "0"]

    def refused(self, targets: list[str]) -> str:
        status, data = self.server.request("POST", "/prompt", {"prompt": self._prompt()}, targets=targets)
        if status != 400:
            raise CheckFailed(f"answered {status}: {data[:200].decode(errors='replace')}")
        error = json.loads(data)["error"]
        if error["type"] != "target_gpu_invalid":  # refused, but not for its header
            raise CheckFailed(f"the reason is {error['type']}: {error.get('message')}")
        valid = str(error.get("extra_info", {}).get("valid", ""))
        if f"0-{len(self.lanes) - 1}" not in valid:
            raise CheckFailed(f"the refusal names {valid!r} as valid, not 0-{len(self.lanes) - 1}")
        return ""

    def picture(self, lane: int) -> str:
        """The prompt ended well on its own lane; its picture is a PNG of the size, and with what on it, that the workflow asks for."""
        prompt_id = self.sent[lane]
        record = self._wait(prompt_id)
        if record["status"]["status_str"] != "success":
            raise CheckFailed(f"status {record['status']['status_str']}: {json.dumps(record['status'])[:600]}")
        if record.get("gpu_id") != lane:
            raise CheckFailed(f"the history says that GPU {record.get('gpu_id')} ran it")
        image = next(image for output in record["outputs"].values() for image in output.get("images", ()))
        status, data = self.server.request("GET", f"/view?{urllib.parse.urlencode(image)}")
        if status != 200 or not data.startswith(PNG_MAGIC):
            raise CheckFailed(f"/view answered {status} and no PNG for {image}")
        size = struct.unpack(">II", data[16:24])
        if self._size() not in (None, size):
            raise CheckFailed(f"the picture is {size[0]}x{size[1]}, not {self._size()}")
        return f"{image['filename']}, {size[0]}x{size[1]}, {self._colours(data)}"

    def _colours(self, data: bytes) -> str:
        """What is on the picture, held against what the workflow's `_meta.expect` says: place -> colour."""
        expected = {place: colour for node in self.workflow.values() for place, colour in node.get("_meta", {}).get("expect", {}).items()}
        try:
            from tools.starter_model.look import colour_at
        except ImportError as error:
            return f"colours not looked at: no {error.name}"
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            file.write(data)
            file.flush()
            seen = {place: colour_at(file.name, place) for place in expected}
        if seen != expected:
            raise CheckFailed(f"the picture shows {seen}, not {expected}")
        return ", ".join(f"{colour} at the {place}" for place, colour in seen.items()) or f"{len(data)} bytes"

    def _wait(self, prompt_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + self.timeout_s
        while time.monotonic() < deadline:
            found = self.server.json("GET", f"/history/{prompt_id}").get(prompt_id)
            if found is not None:
                return dict(found)
            time.sleep(0.2)
        raise CheckFailed(f"prompt {prompt_id} did not finish in {self.timeout_s:.0f} s")

    def _size(self) -> tuple[int, int] | None:
        """Width and height that the workflow's empty latent asks for."""
        for node in self.workflow.values():
            if node["class_type"] == "EmptyLatentImage":
                return node["inputs"]["width"], node["inputs"]["height"]
        return None

    def one_process(self) -> str:
        """One process listens on the port, it is `python … main.py`, and it has started no other main.py."""
        port = self.server.local_port()
        if port is None:
            raise CheckSkipped("the server is on another machine")
        owners = processes_listening(port)
        if not owners:
            raise CheckSkipped("its process cannot be seen from here (another user, a container, or a proxy)")
        if len(owners) > 1:
            raise CheckFailed(f"processes {sorted(owners)} listen on port {port}")
        pid = owners.pop()
        if "main.py" not in command_line(pid):
            raise CheckSkipped(f"process {pid}, which listens on port {port}, is not main.py but a proxy: {command_line(pid)[:80]}")
        workers = [child for child in descendants(pid) if "main.py" in command_line(child)]
        if workers:
            raise CheckFailed(f"process {pid} has started {workers}")
        return f"pid {pid}"


def processes_listening(port: int) -> set[int]:
    """Ids of the processes that have a listening TCP socket on `port`, as far as this user may see (Linux)."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    owners = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(link) in inodes for link in (folder / "fd").iterdir()):
                owners.add(int(folder.name))
        except OSError:  # gone meanwhile, or another user's
            continue
    return owners


def command_line(pid: int) -> str:
    """The words that the process was started with, empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    """Processes that `pid` started, and those that they started."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        parents.setdefault(parent, []).append(int(folder.name))
    found, waiting = [], [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="quick_test.sh", description="Checks a running server.")
    parser.add_argument("--url", default="http://127.0.0.1:8188")
    parser.add_argument("--lanes", type=int, help="lanes that must be there (default: COMFY_NUM_GPUS, else what the server says)")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds that one prompt may take")
    parser.add_argument("--workflow", type=Path, default=ROOT / "test_workflow.json", help="API format, with an output of images")
    args = parser.parse_args(argv)
    lanes = args.lanes
    if lanes is None and os.environ.get("COMFY_NUM_GPUS", "").isdigit():
        lanes = int(os.environ["COMFY_NUM_GPUS"])
    try:
        workflow = json.loads(args.workflow.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        parser.error(f"{args.workflow} cannot be read: {error}")
    return QuickTest(Server(args.url), workflow, lanes, args.timeout).run()


if __name__ == "__main__":
    sys.exit(main())
