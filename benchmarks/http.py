"""How fast does the server answer while its lanes work, with a long queue, and while it reads a large prompt?

    python -m benchmarks.http                 # 4 CPU lanes, a placeholder checkpoint
    python -m benchmarks.http --lanes 2 --jobs 2000 --seconds 5

Three measurements over real connections, each on a server of its own:

1. POST /prompt from `--clients` connections for `--seconds`, while every lane runs a sampler: requests/s, p50, p99.
2. `--jobs` waiting jobs of ten nodes each: time of /queue/all, with details and without.
3. A prompt of 30 MB is sent while another client asks /queue/all all the time: the longest wait of that client.

Exits 1 when /queue/all?details=0 takes 100 ms or more at the median with the long queue, or when the client of 3 once waits
a second or more.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from benchmarks import harness
from benchmarks.harness import Server, text_to_image

CHECKPOINT = "placeholder_noise_sd1.safetensors"  #: made by a server that finds none
PROMPT_BYTES = 30_000_000
LIMIT_MS = 100.0
LONGEST_MS = 1000.0


class Connection:
    """One client that keeps its connection."""

    def __init__(self, server: Server) -> None:
        self._http = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=120)

    def ask(self, method: str, path: str, body: bytes | None = None, lane: int | None = None) -> tuple[int, bytes, float]:
        """(status, body, seconds until the whole answer was read)."""
        headers = {"Content-Type": "application/json"} | ({} if lane is None else {"X-TARGET-GPU": str(lane)})
        started = time.perf_counter()
        self._http.request(method, path, body, headers)
        answer = self._http.getresponse()
        data = answer.read()
        return answer.status, data, time.perf_counter() - started

    def close(self) -> None:
        """Close it."""
        self._http.close()


def summary(seconds: list[float]) -> dict[str, float]:
    """Percentiles in milliseconds."""
    ordered = sorted(seconds)
    return {
        "p50_ms": round(median(ordered) * 1000, 2),
        "p99_ms": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000, 2),
        "max_ms": round(ordered[-1] * 1000, 2),
    }


def ten_nodes(seed: int) -> dict[str, Any]:
    """A prompt of ten nodes, each job another."""
    graph = text_to_image(CHECKPOINT, seed=seed, size=64, steps=1)
    graph["10"] = {"class_type": "ImageInvert", "inputs": {"image": ["8", 0]}}
    graph["11"] = {
        "class_type": "ImageScale",
        "inputs": {"image": ["10", 0], "upscale_method": "bilinear", "width": 32, "height": 32, "crop": "disabled"},
    }
    graph["12"] = {"class_type": "SaveImage", "inputs": {"images": ["11", 0], "filename_prefix": "bench"}}
    return graph


def keep_busy(server: Server, lanes: Sequence[int]) -> None:
    """Give each of these lanes a sampler run that lasts longer than any measurement."""
    for lane in lanes:
        server.submit(text_to_image(CHECKPOINT, seed=lane, size=64, steps=10_000), lane)
    until = time.monotonic() + 120
    while any(server.json("/queue/all?details=0")["queues"][lane]["running_node_id"] != "3" for lane in lanes):
        if time.monotonic() > until:
            raise RuntimeError("the lanes did not begin to sample")
        time.sleep(0.1)


def together(work: list[Callable[[], None]]) -> None:
    """Run each in a thread of its own and wait for all."""
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def prompt_rate(server: Server, lanes: int, clients: int, seconds: float) -> dict[str, Any]:
    """POST /prompt while all lanes sample; the jobs wait behind them."""
    keep_busy(server, range(lanes))
    took: list[float] = []
    refused: list[int] = []
    until = time.monotonic() + seconds

    def client(number: int) -> None:
        connection, seed = Connection(server), number * 1_000_000
        while time.monotonic() < until:
            seed += 1
            status, _, s = connection.ask("POST", "/prompt", json.dumps({"prompt": ten_nodes(seed)}).encode())
            (took if status == 200 else refused).append(s if status == 200 else status)  # type: ignore[arg-type]
        connection.close()

    started = time.monotonic()
    together([lambda number=number: client(number) for number in range(clients)])  # type: ignore[misc]
    elapsed = time.monotonic() - started
    return {"clients": clients, "prompts": len(took), "refused": len(refused), "per_second": round(len(took) / elapsed, 1), **summary(took)}


def long_queue(server: Server, lanes: int, jobs: int) -> dict[str, Any]:
    """`jobs` jobs of ten nodes wait on lane 0; how long /queue/all takes while all lanes sample."""
    keep_busy(server, [0])
    connection = Connection(server)
    for seed in range(jobs):
        status, data, _ = connection.ask("POST", "/prompt", json.dumps({"prompt": ten_nodes(seed)}).encode(), 0)
        if status != 200:
            raise RuntimeError(f"prompt {seed} was refused: {data[:300]!r}")
    keep_busy(server, range(1, lanes))
    told: dict[str, Any] = {"waiting": server.json("/queue/all?details=0")["total_pending"]}
    for name, path, repeats in (("counts", "/queue/all?details=0", 50), ("details", "/queue/all", 5)):
        answers = [connection.ask("GET", path) for _ in range(repeats)]
        told[name] = {"bytes": len(answers[0][1]), **summary([s for _, _, s in answers])}
    connection.close()
    return told


def large_prompt(server: Server) -> dict[str, Any]:
    """A prompt of 30 MB, and another client's questions meanwhile."""
    graph = ten_nodes(1)
    graph["6"]["inputs"]["text"] = "x "
    many = {f"n{i}": {"class_type": "CLIPTextEncode", "inputs": {"text": "word " * 200, "clip": ["4", 1]}} for i in range(27_500)}
    body = json.dumps({"prompt": {**graph, **many}}).encode()
    body = body[:-1] + b" " * max(0, PROMPT_BYTES - len(body)) + b"}"
    waits: list[float] = []
    done = threading.Event()
    answer: list[tuple[int, bytes, float]] = []

    def asker() -> None:
        connection = Connection(server)
        while not done.is_set():
            waits.append(connection.ask("GET", "/queue/all?details=0")[2])
            time.sleep(0.002)
        connection.close()

    def sender() -> None:
        try:
            answer.append(Connection(server).ask("POST", "/prompt", body))
        finally:
            done.set()

    together([asker, sender])
    (status, _, took) = answer[0]
    return {"bytes": len(body), "status": status, "prompt_ms": round(took * 1000, 1), "questions": len(waits), **summary(waits)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--lanes", type=int, default=4)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--gpu", action="store_true", help="lanes on GPUs")
    args = parser.parse_args()
    flags = ["--drain-s", "0", "--max-queue", "1000000"] + ([] if args.gpu else ["--cpu"])
    runs: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="http_") as scratch:
        for name, measure in (
            ("prompt_rate", lambda server: prompt_rate(server, args.lanes, args.clients, args.seconds)),
            ("long_queue", lambda server: long_queue(server, args.lanes, args.jobs)),
            ("large_prompt", large_prompt),
        ):
            with harness.server(Path(scratch) / name, args.lanes, *flags, threads=1) as server:
                runs[name] = measure(server)
                print(name, runs[name], flush=True)
                server.post("/queue", {"clear": True})
                server.post("/interrupt", {})
    path = harness.keep("http", {"lanes": args.lanes, "gpu": args.gpu, **runs})
    print(f"results: {path}")
    large = runs["large_prompt"]
    good = runs["long_queue"]["counts"]["p50_ms"] < LIMIT_MS and large["status"] == 200 and large["max_ms"] < LONGEST_MS
    print("PASS" if good else "FAIL")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
