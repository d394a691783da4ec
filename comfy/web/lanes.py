"""Lanes as operators and load balancers see them: state, health, pausing (docs/monitoring/README.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from comfy import jsonio
from comfy.errors import BodyInvalid, LaneUnknown
from comfy.web.body import read_object
from comfy.web.errors import json_response
from comfy_execution.lane_state import OPEN
from comfy_execution.scheduler import Scheduler
from comfy_execution.views import LaneView

if TYPE_CHECKING:
    from server import PromptServer

#: what a client may ask of a lane -> whether that is a pause
ASKED = {"paused": True, "running": False}


def lane_facts(view: LaneView) -> dict[str, Any]:
    """A lane without its jobs, as `/lanes` and `/queue/all` show it. Times in seconds, `since` as Unix time."""
    lane, totals = view.lane, view.lane.totals
    return {
        "gpu_id": lane.index,
        "device": lane.device,
        "state": lane.state,
        "auto": view.auto,
        "takes_auto_jobs": view.takes,
        "running_count": view.running_count,
        "pending_count": view.pending_count,
        "running_prompt_id": lane.running_id,
        "running_node_id": lane.node_id,
        "running_since": lane.since,
        "quiet_s": round(lane.quiet_s, 3),
        "resident_models": sorted(lane.holds),
        "estimated_wait_s": _estimated_wait_s(view),
        "totals": jsonio.finite(vars(totals)),
    }


def _estimated_wait_s(view: LaneView) -> float | None:
    """Seconds until a job queued now would start, if jobs go on as they did on average; None before the first has ended."""
    totals = view.lane.totals
    if not totals.tasks:
        return None
    return round((view.running_count + view.pending_count) * totals.run_s / totals.tasks, 3)


def is_ready(scheduler: Scheduler | None) -> bool:
    """Whether at least one lane takes prompts."""
    return scheduler is not None and scheduler.accepting and any(view.lane.state in OPEN for view in scheduler.lanes())


def readiness(scheduler: Scheduler | None) -> dict[str, Any]:
    """The answer of `/ready`: `status` is ready, not ready or failed; each lane's state; the reason of a failure."""
    lanes = [] if scheduler is None else scheduler.lanes()
    failed = None if scheduler is None else scheduler.failed
    status = "failed" if failed is not None else "ready" if is_ready(scheduler) else "not ready"
    shown = [{"gpu_id": view.lane.index, "state": view.lane.state, "quiet_s": round(view.lane.quiet_s, 3)} for view in lanes]
    return {"status": status, **({} if failed is None else {"reason": failed}), "lanes": shown}


def lane_index(text: str, n_lanes: int) -> int:
    """A path's lane: ASCII digits that name one. Raises LaneUnknown."""
    if text.isascii() and text.isdigit() and len(text) <= 9 and int(text) < n_lanes:
        return int(text)
    raise LaneUnknown(given=text[:80], valid=f"0-{n_lanes - 1}")


def routes(server: PromptServer) -> web.RouteTableDef:
    """`/lanes`, `/lanes/{gpu_id}`, `/health`, `/ready`."""
    table = web.RouteTableDef()

    @table.get("/lanes")
    async def get_lanes(request: web.Request) -> web.Response:
        return json_response({"lanes": [lane_facts(view) for view in server.scheduler.lanes()]})

    @table.post("/lanes/{gpu_id}")
    async def post_lane(request: web.Request) -> web.Response:
        index = lane_index(request.match_info["gpu_id"], server.scheduler.n_lanes)
        asked = (await read_object(request)).get("state")
        if not isinstance(asked, str) or asked not in ASKED:
            raise BodyInvalid('state must be "paused" or "running".', field="state", given=jsonio.finite(asked))
        server.scheduler.pause(index, ASKED[asked])
        return json_response(lane_facts(server.scheduler.lanes()[index]))

    @table.get("/health")
    async def health(request: web.Request) -> web.Response:
        return json_response({"status": "ok"})

    @table.get("/ready")
    async def ready(request: web.Request) -> web.Response:
        answer = readiness(server.scheduler_or_none)
        return json_response(answer, 200 if answer["status"] == "ready" else 503)

    return table
