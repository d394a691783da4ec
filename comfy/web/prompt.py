"""POST /prompt: a request body -> PromptRequest -> ValidPrompt -> a job in a lane's queue (contract: http-api.md section 3)."""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import web

from comfy.errors import BodyInvalid, PromptInvalid, PromptTooLarge
from comfy.units import MIB
from comfy.web.body import ids_of, kind_of, read_json
from comfy.web.errors import json_response
from comfy.web.target import target_of
from comfy_execution.validation import LARGE, validate_prompt

if TYPE_CHECKING:
    from server import PromptServer

log = logging.getLogger(__name__)

MAX_PROMPT_BYTES = 32 * MIB
MAX_ID = 256

NO_PROMPT = {"type": "no_prompt", "message": "No prompt provided", "details": "No prompt provided", "extra_info": {}}


@dataclass(frozen=True)
class PromptRequest:
    """A submission, its fields checked and the graph not yet.

    number   None when the client gave none: the server's counter decides
    targets  ids of the only output nodes to run, None for all
    """

    prompt: Any
    prompt_id: str
    extra_data: dict[str, Any]
    number: float | None = None
    front: bool = False
    targets: list[str] | None = None


def is_bare_graph(body: dict[str, Any]) -> bool:
    """Whether the body is a workflow itself, as `curl -d @workflow.json` sends it: every value a node with a class."""
    return bool(body) and "prompt" not in body and all(isinstance(node, dict) and "class_type" in node for node in body.values())


def parse_request(body: dict[str, Any]) -> PromptRequest:
    """A submission's JSON object -> PromptRequest. Raises PromptInvalid without a prompt, BodyInvalid for a bad field."""
    if "prompt" not in body:
        raise PromptInvalid(NO_PROMPT)
    targets = None if body.get("partial_execution_targets") is None else ids_of(body, "partial_execution_targets")
    return PromptRequest(
        prompt=body["prompt"],
        prompt_id=_id(body.get("prompt_id"), "prompt_id") or str(uuid.uuid4()),
        extra_data=_extra_data(body),
        number=_number(body["number"]) if "number" in body else None,
        front=bool(body.get("front")),
        targets=targets,
    )


def _extra_data(body: dict[str, Any]) -> dict[str, Any]:
    extra = body.get("extra_data")
    if extra is not None and not isinstance(extra, dict):
        raise BodyInvalid("extra_data must be an object.", field="extra_data", given=kind_of(extra))
    extra = dict(extra or {})
    if "client_id" in body:
        extra["client_id"] = body["client_id"]
    if "client_id" in extra:
        extra["client_id"] = _id(extra["client_id"], "client_id")
    return extra


def _id(value: Any, field: str) -> str | None:
    """An id as text, None for null. It goes into log lines and addresses: printable, and at most MAX_ID characters."""
    if value is None:
        return None
    text = str(value)
    if isinstance(value, (dict, list, bool)) or not text.isprintable() or len(text) > MAX_ID:
        raise BodyInvalid(f"{field} must be printable text of at most {MAX_ID} characters.", field=field, given=kind_of(value))
    return text


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise BodyInvalid("number must be a finite number.", field="number", given=kind_of(value))
    return number


async def submit(server: PromptServer, body: Any, target: int | None) -> dict[str, Any]:
    """Take a submission in and return the answer. Raises PromptInvalid, BodyInvalid or what `Scheduler.submit` raises.

    The counter advances for each submission without a number, also for one that is then refused.
    """
    scheduler = server.scheduler
    if isinstance(body, dict):
        body = server.trigger_on_prompt({"prompt": body} if is_bare_graph(body) else body)
    counted = None
    if not (isinstance(body, dict) and "number" in body):
        counted = scheduler.next_number()
    if not isinstance(body, dict):
        raise PromptInvalid(NO_PROMPT)
    request = parse_request(body)
    number: float = request.number if request.number is not None else counted or 0
    if counted is not None and request.front:
        number = -counted
    try:
        valid = await validate_prompt(request.prompt_id, request.prompt, server.registry, request.targets)
    except PromptInvalid as error:
        log.warning("invalid prompt: %s", error)
        raise
    accept = partial(
        scheduler.submit, prompt_id=request.prompt_id, number=number, valid=valid, extra_data=request.extra_data, target=target
    )
    # its JSON is made when it is accepted, which for a large prompt takes long enough to keep other clients waiting
    job, lane = await asyncio.to_thread(accept) if len(valid.prompt) > LARGE else accept()
    answer = {"prompt_id": job.prompt_id, "number": number, "node_errors": valid.node_errors}
    if scheduler.multi_gpu:
        answer["gpu_id"] = lane
    return answer


def routes(server: PromptServer) -> web.RouteTableDef:
    """`/prompt`."""
    table = web.RouteTableDef()

    @table.get("/prompt")
    async def get_prompt(request: web.Request) -> web.Response:
        return json_response({"exec_info": {"queue_remaining": server.scheduler.remaining()}})

    @table.post("/prompt")
    async def post_prompt(request: web.Request) -> web.Response:
        target = target_of(request, server)  # first: a bad header must cost nothing and queue nothing
        limit = min(MAX_PROMPT_BYTES, request.client_max_size)
        body = await read_json(request, limit, PromptTooLarge)
        log.info("got prompt")
        return json_response(await submit(server, body, target))

    return table
