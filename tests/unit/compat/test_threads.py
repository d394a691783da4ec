"""Acceptance check 9 of parallel-hazards.md as far as a CPU shows it; tests/gpu has the rest."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from comfy import control
from comfy.compat import threads
from comfy.control import JobControl
from comfy.device import context
from comfy.device.context import make_context
from comfy.model_management import get_torch_device
from comfy.weights.cache import WeightCache
from comfy_api.latest import ComfyAPISync


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    threads.install()
    yield
    threads.uninstall()


def where() -> tuple[str | None, int | None, str]:
    """(job, lane, device) of the calling code."""
    job, lane = control.current(), context.current_or_none()
    return (None if job is None else job.prompt_id, None if lane is None else lane.index, str(get_torch_device()))


def in_lane(index: int, work: Any) -> Any:
    ctx = make_context(index, torch.device("cpu"), WeightCache(1 << 20), 1 << 20)
    with ctx.activate(), control.entered(JobControl(f"job-{index}")):
        return work()


def in_thread(thread_class: type[threading.Thread] = threading.Thread) -> tuple[str | None, int | None, str]:
    seen: list[tuple[str | None, int | None, str]] = []
    thread = thread_class(target=lambda: seen.append(where()))
    thread.start()
    thread.join()
    return seen[0]


def test_a_thread_started_in_a_lane_belongs_to_its_job_and_device() -> None:
    assert in_lane(3, in_thread) == ("job-3", 3, "cpu")


def test_a_subclass_with_a_run_of_its_own_does_too() -> None:
    class Reader(threading.Thread):
        def run(self) -> None:
            super().run()

    assert in_lane(2, lambda: in_thread(Reader)) == ("job-2", 2, "cpu")


def test_a_thread_started_outside_a_lane_has_neither() -> None:
    assert in_thread()[:2] == (None, None)


def test_each_task_of_one_pool_belongs_to_the_lane_that_submitted_it() -> None:
    with ThreadPoolExecutor(1) as pool:
        first = in_lane(0, lambda: pool.submit(where).result())  # this one starts the worker
        second = in_lane(1, lambda: pool.submit(where).result())
        mapped = in_lane(2, lambda: list(pool.map(lambda _: where(), range(2))))
        outside = pool.submit(where).result()
    assert [one[:2] for one in (first, second, *mapped, outside)] == [("job-0", 0), ("job-1", 1), ("job-2", 2), ("job-2", 2), (None, None)]


def test_threads_of_threads_inherit_as_well() -> None:
    def outer() -> Any:
        seen: list[Any] = []
        thread = threading.Thread(target=lambda: seen.append(in_thread()))
        thread.start()
        thread.join()
        return seen[0]

    assert in_lane(1, outer)[:2] == ("job-1", 1)


def test_what_a_target_raises_and_returns_is_untouched() -> None:
    with ThreadPoolExecutor(1) as pool:
        future = in_lane(0, lambda: pool.submit(int, "x"))
        with pytest.raises(ValueError, match="invalid literal"):
            future.result()
        assert in_lane(0, lambda: pool.submit(pow, 2, exp=3).result()) == 8


def test_the_blocking_api_works_for_the_callers_job(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    async def note(*args: Any) -> None:
        seen.append(where())

    from comfy_api.latest import ComfyAPI

    monkeypatch.setattr(ComfyAPI().execution, "set_progress", note)
    in_lane(1, lambda: ComfyAPISync().execution.set_progress(1, 2, node_id="1"))
    assert seen == [("job-1", 1, "cpu")]


def test_installing_twice_is_installing_once() -> None:
    before = threading.Thread.start
    threads.install()
    assert threading.Thread.start is before
