"""What systemd hears."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy import notify


@pytest.fixture(params=["path", "abstract"])
def supervisor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, dict[str, str]]]:
    """A bound socket, and the environment of a service that is told of it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@comfy-test-{os.getpid()}-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        bound.settimeout(30)
        yield bound, {"NOTIFY_SOCKET": name}


def test_readiness_carries_a_status_line(supervisor: tuple[socket.socket, dict[str, str]]) -> None:
    bound, env = supervisor
    assert notify.ready("4 lanes take jobs", env)
    assert bound.recv(4096) == b"READY=1\nSTATUS=4 lanes take jobs"


def test_stopping_asks_for_the_time_that_the_drain_takes(supervisor: tuple[socket.socket, dict[str, str]]) -> None:
    bound, env = supervisor
    assert notify.stopping(300, env)
    lines = bound.recv(4096).decode().splitlines()
    assert lines[0] == "STOPPING=1"
    assert f"EXTEND_TIMEOUT_USEC={330 * 10**6}" in lines


def test_without_a_supervisor_nothing_is_sent() -> None:
    assert not notify.ready("ready", {})
    assert not notify.stopping(1, {"NOTIFY_SOCKET": ""})


def test_a_supervisor_that_is_gone_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert not notify.ready("ready", {"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    assert "does not hear us" in caplog.text
