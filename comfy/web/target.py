"""X-TARGET-GPU: the lane that a request is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from comfy_execution.router import parse_target

if TYPE_CHECKING:
    from server import PromptServer

HEADER = "X-TARGET-GPU"


def target_of(request: web.Request, server: PromptServer) -> int | None:
    """The lane that the request names; None without the header, for `auto`, and always on a single-GPU server.

    Raises TargetGpuInvalid for anything else, a repeated header included.
    """
    scheduler = server.scheduler
    if not scheduler.multi_gpu:
        return None
    return parse_target(request.headers.getall(HEADER, []), scheduler.n_lanes)
