"""Threads and pools that nodes start belong to the lane that runs the node (contract: parallel-hazards.md items 17 and 58).

A bare thread begins without context and on GPU 0: `"cuda"` would land there behind lane 0's back, and progress, client and
interrupt would be nobody's. What is started inside a lane gets a copy of the starter's context and the lane's GPU.
"""

from __future__ import annotations

import contextvars
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch

from comfy.device import context

R = TypeVar("R")


def _on_device() -> AbstractContextManager[Any]:
    lane = context.current_or_none()
    return torch.cuda.device(lane.device) if lane is not None and lane.device.type == "cuda" else nullcontext()


def inherit(function: Callable[..., R]) -> Callable[..., R]:
    """`function` for another thread: it runs in a copy of the present context, on the present lane's GPU."""
    copied = contextvars.copy_context()

    def call(*args: Any, **kwargs: Any) -> R:
        with _on_device():
            return function(*args, **kwargs)

    return functools.partial(copied.run, call)


def install() -> None:
    """Have `Thread.start` and `ThreadPoolExecutor.submit` do that for calls made inside a lane. Once; later calls do nothing.

    Both are replaced on their classes, because packs use the standard library's own. Outside a lane they are as before.
    """
    if not hasattr(threading.Thread.start, "__wrapped__"):
        threading.Thread.start = _starting(threading.Thread.start)  # type: ignore[method-assign, assignment]
        ThreadPoolExecutor.submit = _submitting(ThreadPoolExecutor.submit)  # type: ignore[method-assign]


def uninstall() -> None:
    """Put the standard library's methods back, for tests."""
    threading.Thread.start = getattr(threading.Thread.start, "__wrapped__", threading.Thread.start)  # type: ignore[method-assign]
    ThreadPoolExecutor.submit = getattr(  # type: ignore[method-assign]
        ThreadPoolExecutor.submit, "__wrapped__", ThreadPoolExecutor.submit
    )


def _starting(start: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    @functools.wraps(start)
    def start_in_lane(self: threading.Thread) -> None:
        if context.current_or_none() is not None and self.ident is None:
            inherited = inherit(self.run)

            def run() -> None:
                del self.run  # the thread would hold itself
                inherited()

            self.run = run  # type: ignore[method-assign]
        start(self)

    return start_in_lane


def _submitting(submit: Callable[..., Future[Any]]) -> Callable[..., Future[Any]]:
    @functools.wraps(submit)
    def submit_in_lane(self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if context.current_or_none() is None:
            return submit(self, fn, *args, **kwargs)
        # the pool may start a worker now, which outlives this job and must not belong to it
        return contextvars.Context().run(submit, self, inherit(fn), *args, **kwargs)

    return submit_in_lane
