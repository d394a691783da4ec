"""A GPU that fails for good, injected into a real server: what clients see, what is kept, how the process ends and starts again."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import Server, server
from comfy_execution.ending import FATAL_STATUS
from comfy_execution.saved_queue import load
from tests.make_checkpoint import make_sd1_checkpoint

PACK = '''
import os, time
import torch
from comfy import model_management

class Broken:
    """Fails as a GPU does: for good, or for want of memory."""
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "go", "test", True
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"how": ("STRING", {"default": ""})}}
    def go(self, how):
        if how == "oom":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if how == "fatal":
            raise RuntimeError("CUDA error: an illegal memory access was encountered\\nCUDA kernel errors might be reported later")
        return {"ui": {"text": [how]}}

class Stuck:
    """Never polls, as a kernel that never ends."""
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "go", "test", True
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"path": ("STRING", {"default": ""})}}
    def go(self, path):
        open(path, "w").close()
        time.sleep(600)

NODE_CLASS_MAPPINGS = {"Broken": Broken, "Stuck": Stuck}
'''
SECRET = "a-key-that-no-log-shows"
PROMPT_TEXT = "words-that-only-the-client-may-see"


def prompt(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"1": {"class_type": class_type, "inputs": inputs}}


def wait_until(what: Any, running: Server) -> Any:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = what()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"never; the server's status is {running.process.poll()}")


def readiness(running: Server) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(running.url + "/ready", timeout=10) as answer:
            told: dict[str, Any] = json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            told = json.loads(error.read())
    return told


def ended(running: Server, prompt_id: str) -> dict[str, Any]:
    record = wait_until(lambda: running.json(f"/history/{prompt_id}"), running)
    status: dict[str, Any] = record[prompt_id]["status"]
    return status


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for name in ("models/checkpoints", "custom_nodes/broken_pack"):
        (tmp_path / name).mkdir(parents=True)
    make_sd1_checkpoint(tmp_path / "models/checkpoints/small.safetensors")
    (tmp_path / "custom_nodes/broken_pack/__init__.py").write_text(PACK)
    return tmp_path


def test_a_fatal_error_ends_the_process_and_the_next_one_goes_on(base: Path) -> None:
    saved, started = base / "user/queue.json", base / "started"
    with server(base, 2, "--cpu", threads=1) as running:
        for _ in range(4):  # memory that runs out is never fatal, however often
            assert ended(running, running.submit(prompt("Broken", how="oom"), 0))["status_str"] == "error"
        assert readiness(running)["status"] == "ready"
        body = {"prompt": prompt("Broken", how=PROMPT_TEXT), "extra_data": {"api_key_comfy_org": SECRET}}
        assert ended(running, running.post("/prompt", body)["prompt_id"])["completed"]
        innocent = running.submit(prompt("Stuck", path=str(started)), 1)
        wait_until(started.exists, running)
        waits = running.submit(prompt("Broken", how="fine"), 1)
        guilty = running.submit(prompt("Broken", how="fatal"), 0)
        told = wait_until(lambda: (found := readiness(running))["status"] == "failed" and found, running)
        assert [lane["state"] for lane in told["lanes"]] == ["failed", "failed"]
        assert told["reason"] == "CUDA error 700: an illegal memory access was encountered"
        name, data = ended(running, innocent)["messages"][-1]
        assert (name, data["exception_type"]) == ("execution_error", "DeviceFailed")
        assert told["reason"] in data["exception_message"]
        assert "illegal memory access" in ended(running, guilty)["messages"][-1][1]["exception_message"]
        with contextlib.suppress(OSError), pytest.raises(RuntimeError, match="device_failed"):  # or it has ended already
            running.submit(prompt("Broken", how="late"))
        assert running.process.wait(60) == FATAL_STATUS
    assert [job.prompt_id for _, job in load(saved)] == [waits]
    log = (base / "server.log").read_text(encoding="utf-8")
    assert "💥 [GPU 0] failed for good: CUDA error 700" in log
    assert SECRET not in log
    assert PROMPT_TEXT not in log
    with server(base, 2, "--cpu", "--log-format", "json", threads=1) as again:
        assert ended(again, waits)["completed"]
        assert not saved.exists()
    lines = (base / "server.log").read_text(encoding="utf-8").removeprefix(log).splitlines()
    actions = {json.loads(line).get("action") for line in lines if line.startswith("{")}
    assert {"lane_started", "warmup_completed", "job_finished"} <= actions
