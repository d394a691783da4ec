"""quick_test.sh passes on a server that is right, and fails, naming it, on each kind of server that is wrong."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAKE = Path(__file__).with_name("fake_lanes_server.py")


@contextmanager
def serving(mode: str) -> Iterator[str]:
    """The fake server in a process of its own, whose command line holds main.py; gives its address."""
    process = subprocess.Popen([sys.executable, str(FAKE), mode, "main.py"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def quick_test(url: str, *more: str) -> tuple[int, list[str], str]:
    """Exit status, the names of the checks that failed, and everything printed."""
    env = {name: value for name, value in os.environ.items() if name != "COMFY_NUM_GPUS"}
    done = subprocess.run(
        [str(ROOT / "quick_test.sh"), "--url", url, "--timeout", "5", *more], capture_output=True, text=True, env=env, check=False
    )
    failed = [line[6:] for line in done.stdout.splitlines() if line.startswith("FAIL  ")]
    return done.returncode, failed, done.stdout + done.stderr


def test_a_right_server_passes_every_check() -> None:
    with serving("good") as url:
        status, failed, printed = quick_test(url)
    assert (status, failed) == (0, []), printed
    for words in ("GPU 3 finished", "one past the last", "sent twice", "one process"):
        assert words in printed
    assert printed.rstrip().endswith("All checks passed.")


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("lane-missing", "every lane is in /queue/all: gpu_id [0, 1, 3], expected [0, 1, 2, 3]"),
        ("lane-paused", "every lane takes prompts: /ready answered 200 ready: GPU 2 is paused"),
        ("ignores-header", "a prompt for GPU 1 is queued there: the reply says gpu_id 0"),
        ("ignores-header", "X-TARGET-GPU abc is refused: answered 200"),
        ("odd-refusal", "X-TARGET-GPU -1 is refused: the reason is invalid_prompt"),
        ("no-picture", "GPU 2 finished its prompt and the picture is there: /view answered 404"),
        ("wrong-colour", "GPU 0 finished its prompt and the picture is there: the picture shows {'top': 'green'"),
        ("two-processes", "one process serves all lanes: process"),
        ("single", "server answers: the server runs in single-GPU mode"),
    ],
)
def test_a_wrong_server_fails(mode: str, words: str) -> None:
    with serving(mode) as url:
        status, failed, printed = quick_test(url)
    assert status == 1
    assert any(line.startswith(words) for line in failed), printed


def test_lanes_that_were_asked_for_must_be_there() -> None:
    with serving("good") as url:
        status, failed, _ = quick_test(url, "--lanes", "5")
    assert (status, failed) == (1, ["every lane is in /queue/all: gpu_id [0, 1, 2, 3], expected [0, 1, 2, 3, 4]"])


def test_a_dead_server_fails() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: nothing else can take the port meanwhile
        status, failed, _ = quick_test(f"http://127.0.0.1:{closed.getsockname()[1]}")
    assert status == 1
    assert [line.split(":")[0] for line in failed] == ["server answers"]
