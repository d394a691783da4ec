"""Starts a server of this checkout, drives it over HTTP, and keeps results with the machine beside them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


class Server:
    """A running server: its address, its process, and requests to it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> bytes:
        """The body of a GET."""
        with urllib.request.urlopen(self.url + path, timeout=120) as answer:
            return bytes(answer.read())

    def json(self, path: str) -> Any:
        """The JSON of a GET."""
        return json.loads(self.get(path))

    def post(self, path: str, body: Any, lane: int | None = None) -> Any:
        """The JSON of a POST, None when its body is empty. Raises RuntimeError with the answer when it is refused."""
        headers = {"Content-Type": "application/json"} | ({} if lane is None else {"X-TARGET-GPU": str(lane)})
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                data = answer.read()
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"POST {path}: {error.code} {error.read().decode(errors='replace')[:2000]}") from None
        return json.loads(data) if data else None

    def submit(self, prompt: dict[str, Any], lane: int | None = None) -> str:
        """Queue a prompt; returns its id."""
        return str(self.post("/prompt", {"prompt": prompt}, lane)["prompt_id"])

    def wait(self, prompt_ids: Sequence[str], timeout_s: float = 900) -> dict[str, Any]:
        """The history records of these prompts, once all are over. Raises RuntimeError when one failed."""
        until = time.monotonic() + timeout_s
        done: dict[str, Any] = {}
        for prompt_id in prompt_ids:  # one request at a time: waiting must not slow down what is measured
            while not (record := self.json(f"/history/{prompt_id}")):
                if time.monotonic() > until or self.process.poll() is not None:
                    raise RuntimeError(f"{len(done)} of {len(prompt_ids)} prompts done; server status {self.process.poll()}")
                time.sleep(0.02)
            done |= record
        for prompt_id, record in done.items():
            if not record["status"]["completed"]:
                raise RuntimeError(f"prompt {prompt_id} failed: {record['status']['messages'][-1]}")
        return done

    def pictures(self, record: dict[str, Any]) -> list[bytes]:
        """The files of a history record's images."""
        images = [image for output in record["outputs"].values() for image in output.get("images", [])]
        return [self.get(f"/view?filename={image['filename']}&subfolder={image['subfolder']}&type={image['type']}") for image in images]

    def free(self) -> None:
        """Drop cached outputs on every lane."""
        self.post("/free", {"free_memory": True})

    def pss_bytes(self) -> int:
        """Proportional set size of the server and its children: shared pages counted once."""
        import psutil

        processes = [psutil.Process(self.process.pid)]
        processes += processes[0].children(recursive=True)
        total = 0
        for process in processes:
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        return total


@contextlib.contextmanager
def server(base: Path, lanes: int, *flags: str, threads: int | None = None) -> Iterator[Server]:
    """A server over `base` with `lanes` lanes, on a free port; stopped at the end of the `with` block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = os.environ | {"COMFY_MULTI_GPU_SCHED": "1", "COMFY_NUM_GPUS": str(lanes)}
    if threads is not None:
        env |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, str(ROOT / "main.py"), "--port", str(port), "--base-directory", str(base), *flags]
    base.mkdir(parents=True, exist_ok=True)
    with open(base / "server.log", "ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
    running = Server(process, port)
    try:
        _wait_ready(running, base / "server.log")
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(running: Server, log: Path, timeout_s: float = 180) -> None:
    until = time.monotonic() + timeout_s
    while time.monotonic() < until and running.process.poll() is None:
        with contextlib.suppress(OSError):
            running.get("/ready")
            return
        time.sleep(0.1)
    raise RuntimeError(f"the server did not become ready:\n{log.read_text(errors='replace')[-3000:]}")


def text_to_image(
    checkpoint: str,
    *,
    seed: int,
    size: int,
    steps: int,
    sampler: str = "euler",
    text: str = "a red circle",
    prefix: str = "bench",
    cfg: float = 7.0,
) -> dict[str, Any]:
    """The ordinary text-to-image graph in API format."""
    return {
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": checkpoint}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": size, "height": size, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": text, "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["4", 1]}},
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "seed": seed,
                "steps": steps,
                "cfg": cfg,
                "sampler_name": sampler,
                "scheduler": "normal",
                "denoise": 1.0,
                "model": ["4", 0],
                "positive": ["6", 0],
                "negative": ["7", 0],
                "latent_image": ["5", 0],
            },
        },
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": prefix}},
    }


def sha256(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return {
        "cpu_cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "gpus": gpus,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def commit() -> str:
    """The commit that was measured, with `+` when the tree differs from it; BENCH_COMMIT names it where there is no .git."""
    if os.environ.get("BENCH_COMMIT"):
        return os.environ["BENCH_COMMIT"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        name = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
        dirty = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
        return name + ("+" if dirty else "")
    return "unknown"


def keep(name: str, figures: dict[str, Any], folder: Path | None = None) -> Path:
    """Write `<name>.json` with commit, machine, versions and raw numbers; returns the path."""
    path = (folder or Path(os.environ.get("OUT") or RESULTS)) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"benchmark": name, "commit": commit(), "machine": machine(), "unix_time": int(time.time()), **figures}
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path
