"""The process ends by itself after a GPU failed, also when its log cannot be flushed."""

from __future__ import annotations

import queue
import threading

import pytest

from comfy_execution import ending
from tests.unit.lanes.fakes import House


@pytest.mark.parametrize("flush_hangs", [False, True])
def test_the_process_leaves_with_its_own_status(monkeypatch: pytest.MonkeyPatch, flush_hangs: bool) -> None:
    monkeypatch.setattr(ending, "LINGER_S", 0.01)
    monkeypatch.setattr(ending, "PATIENCE_S", 0.05)
    go_on = threading.Event()
    monkeypatch.setattr(ending.logging, "shutdown", lambda: go_on.wait(20 if flush_hangs else 0))
    left: queue.SimpleQueue[int] = queue.SimpleQueue()
    with House(1) as house:
        ending.exit_when_failed(house.scheduler, left.put)
        house.scheduler.fail(0, "CUDA error 700: an illegal memory access was encountered")
        assert left.get(timeout=20) == ending.FATAL_STATUS == 75
    go_on.set()
    for thread in threading.enumerate():
        if thread.name == "fatal-exit" or isinstance(thread, threading.Timer):
            thread.join(20)
