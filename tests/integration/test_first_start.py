"""What an operator sees on the first day: start, log lines in order, quick_test.sh, a picture by curl, an orderly stop."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Started:
    process: subprocess.Popen[str]
    url: str
    output: Path

    def lines(self) -> list[str]:
        return self.output.read_text(encoding="utf-8").splitlines()

    def lines_when(self, words: str) -> list[str]:
        """All lines, once one of them begins with `words`; fails after 60 s."""
        until = time.monotonic() + 60
        while not any(line.startswith(words) for line in self.lines()):
            assert time.monotonic() < until, self.lines()
            time.sleep(0.05)
        return self.lines()


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """main.py with two lanes over a base directory with the models of this tree, with a console that knows no emoji."""
    base = tmp_path_factory.mktemp("base")
    (base / "models").symlink_to(ROOT / "models")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("COMFY_", "PYTHON"))}
    env |= {"COMFY_MULTI_GPU_SCHED": "1", "COMFY_NUM_GPUS": "2", "PYTHONIOENCODING": "ascii:strict", "OMP_NUM_THREADS": "1"}
    output = base / "console"
    command = [sys.executable, "main.py", "--cpu", "--port", str(port), "--base-directory", str(base)]
    with output.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT, text=True)
    try:
        url = f"http://127.0.0.1:{port}"
        waited = subprocess.run([sys.executable, "tools/wait_ready.py", f"{url}/ready", str(process.pid), "90"], cwd=ROOT, check=False)
        assert waited.returncode == 0, output.read_text(encoding="utf-8")
        yield Started(process, url, output)
    finally:
        process.kill()
        process.wait()


def test_quick_test_passes_and_the_workflow_runs_by_curl(started: Started) -> None:
    checked = subprocess.run([str(ROOT / "quick_test.sh"), "--url", started.url], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    for header in ([], ["-H", "X-TARGET-GPU: 1"]):
        curl = ["curl", "-s", "-X", "POST", f"{started.url}/prompt", *header, "-d", f"@{ROOT / 'test_workflow.json'}"]
        reply = json.loads(subprocess.run(curl, capture_output=True, text=True, check=True).stdout)
        assert set(reply) == {"prompt_id", "number", "node_errors", "gpu_id"}
        assert reply["node_errors"] == {}
        assert reply["gpu_id"] in ((0, 1) if not header else (1,))


def test_the_lines_that_operators_grep_are_there_in_order(started: Started) -> None:
    lines = started.lines_when("✅ Custom nodes are compatible")
    first = [
        next((at for at, line in enumerate(lines) if line.startswith(words)), words)
        for words in (
            "✅ Multi-GPU scheduling ENABLED",
            "🚀 Multi-GPU mode ENABLED with 2 GPUs",
            "📋 Created 2 task queues",
            "🔥 [GPU 0] Starting warmup…",
            "✅ [GPU 0] Warmup completed",
            "🔍 Checking custom nodes compatibility…",
        )
    ]
    assert all(isinstance(at, int) for at in first), first
    assert first == sorted(first)
    for lane in (0, 1):
        for words in (
            f"🚀 Started worker thread for GPU {lane}",
            f"🔧 [GPU {lane}] Worker started on cpu",
            f"✅ [GPU {lane}] Warmup completed",
        ):
            assert lines.count(words) == 1, words


def test_an_orderly_stop_ends_with_status_0(started: Started) -> None:
    started.process.send_signal(signal.SIGTERM)
    assert started.process.wait(timeout=90) == 0
    assert "Traceback" not in "\n".join(started.lines())
