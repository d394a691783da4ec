"""`ComfyAPI` and `ComfyAPISync`: what nodes may ask of the server while they run (contract: custom-nodes.md section 4.6)."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from PIL import Image

import comfy.control
from comfy.compat.threads import inherit
from comfy.images_io import picture, to_uint8
from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context

#: longest side of a preview, in pixels, unless the caller ignores the limit
PREVIEW_SIZE = 512


def _preview(image: Any, ignore_size_limit: bool) -> tuple[str, Image.Image, int | None] | None:
    """A PIL image or a picture tensor (h, w, c) or (1, h, w, c) in the form that progress takes."""
    if image is None:
        return None
    if isinstance(image, torch.Tensor):
        image = picture(to_uint8(image[0] if image.ndim == 4 else image))
    return "PNG", image, None if ignore_size_limit else PREVIEW_SIZE


def _report(value: float, max_value: float, node_id: str | None, preview_image: Any, ignore_size_limit: bool) -> None:
    if node_id is None:
        context = get_executing_context()
        if context is None:
            raise ValueError("node_id is needed outside of a running node")
        node_id = context.node_id
    comfy.control.check()
    get_progress_state().update_progress(node_id, value, max_value, _preview(preview_image, ignore_size_limit))


class _Execution:
    async def set_progress(
        self, value: float, max_value: float, node_id: str | None = None, preview_image: Any = None, ignore_size_limit: bool = False
    ) -> None:
        """Say how far a node is, with a preview. Raises ValueError without a node, Interrupted when the job was stopped."""
        _report(value, max_value, node_id, preview_image, ignore_size_limit)


class ComfyAPI:
    """One per process; the running job is found through the calling context."""

    VERSION = "latest"
    STABLE = False
    _instance: ComfyAPI | None = None
    execution: _Execution

    def __new__(cls) -> ComfyAPI:
        if cls._instance is None:
            cls._instance = super().__new__(cls)
            cls._instance.execution = _Execution()
        return cls._instance


_pool_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None


def _blocking(method: Any, *args: Any, **kwargs: Any) -> Any:
    """Run a coroutine function to its end on a shared thread, in a copy of the caller's context and on its lane's device."""
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="comfy-api")
        pool = _pool
    return pool.submit(inherit(lambda: asyncio.run(method(*args, **kwargs)))).result()


class _ExecutionSync:
    def set_progress(
        self, value: float, max_value: float, node_id: str | None = None, preview_image: Any = None, ignore_size_limit: bool = False
    ) -> None:
        """As the asynchronous one."""
        _blocking(ComfyAPI().execution.set_progress, value, max_value, node_id, preview_image, ignore_size_limit)


class ComfyAPISync:
    """The same methods, blocking."""

    VERSION = "latest"
    STABLE = False
    _instance: ComfyAPISync | None = None
    execution: _ExecutionSync

    def __new__(cls) -> ComfyAPISync:
        if cls._instance is None:
            cls._instance = super().__new__(cls)
            cls._instance.execution = _ExecutionSync()
        return cls._instance
