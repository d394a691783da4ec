"""GET /openapi.json: what each route takes and answers, in OpenAPI 3.1. Made from the router and the table below.

A test holds the table to the routes. Routes of packs are listed with their path parameters only; the `/api` twins, the
websocket and the files of the front end are not listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from comfy.config import VERSION
from comfy.web.errors import json_response
from comfy.web.target import HEADER

if TYPE_CHECKING:
    from server import PromptServer

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
WHOLE: Schema = {"type": "integer"}
ANYTHING: Schema = {}
IDS: Schema = {"type": "array", "items": TEXT}
TRUTH: Schema = {"type": "string", "enum": ["true", "false"]}
FOLDER_TYPE: Schema = {"type": "string", "enum": ["input", "output", "temp"]}


def an_object(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    """The schema of a JSON object; other keys are ignored by the server."""
    return {"type": "object", "properties": properties, **({"required": list(required)} if required else {})}


NODE = an_object(("class_type", "inputs"), class_type=TEXT, inputs={"type": "object"})
GRAPH: Schema = {"type": "object", "additionalProperties": NODE}
PROMPT = an_object(
    ("prompt",),
    prompt=GRAPH,
    prompt_id=TEXT,
    client_id=TEXT,
    extra_data={"type": "object"},
    number={"type": "number"},
    front=FLAG,
    partial_execution_targets=IDS,
)
LISTED = an_object(clear=FLAG, delete=IDS)
USERDATA_QUERY = {"overwrite": TRUTH, "full_info": TRUTH}
UPLOAD = an_object(("image",), image={"type": "string", "format": "binary"}, type=FOLDER_TYPE, subfolder=TEXT, overwrite=TRUTH)
MASK = {**UPLOAD, "properties": {**UPLOAD["properties"], "original_ref": TEXT}}


@dataclass(frozen=True)
class Takes:
    """What one route takes beyond its path.

    query     parameter -> schema
    body      schema of the body, None for none
    media     the body's type
    required  whether the body may be left out
    lane      whether X-TARGET-GPU has a meaning here
    """

    summary: str
    query: Mapping[str, Schema] = field(default_factory=dict)
    body: Schema | None = None
    media: str = "application/json"
    required: bool = True
    lane: bool = False


TABLE: dict[tuple[str, str], Takes] = {
    ("GET", "/"): Takes("The front end."),
    ("GET", "/prompt"): Takes("How many jobs there are."),
    ("POST", "/prompt"): Takes("Queue a prompt, or a bare workflow graph.", body={"anyOf": [PROMPT, GRAPH]}, lane=True),
    ("GET", "/queue"): Takes("Running and waiting jobs.", lane=True),
    ("POST", "/queue"): Takes("Remove waiting jobs.", body=LISTED, lane=True),
    ("GET", "/queue/all"): Takes("Every lane's jobs.", {"details": {"type": "string", "enum": ["0", "1"]}}),
    ("GET", "/debug/queues"): Takes("How many jobs each lane has."),
    ("GET", "/lanes"): Takes("The lanes."),
    ("POST", "/lanes/{gpu_id}"): Takes(
        "Pause a lane, or bring it back.", body=an_object(("state",), state={"type": "string", "enum": ["paused", "running"]})
    ),
    ("GET", "/metrics"): Takes("Figures for Prometheus."),
    ("POST", "/interrupt"): Takes("Stop running jobs.", body=an_object(prompt_id=TEXT), required=False, lane=True),
    ("POST", "/free"): Takes("Drop models and caches.", body=an_object(unload_models=FLAG, free_memory=FLAG), lane=True),
    ("GET", "/history"): Takes("Finished jobs.", {"max_items": WHOLE, "offset": WHOLE}),
    ("POST", "/history"): Takes("Forget finished jobs.", body=LISTED),
    ("GET", "/history/{prompt_id}"): Takes("One finished job."),
    ("GET", "/health"): Takes("The process answers."),
    ("GET", "/ready"): Takes("A lane takes jobs."),
    ("GET", "/object_info"): Takes("All nodes."),
    ("GET", "/object_info/{node_class}"): Takes("One node."),
    ("GET", "/system_stats"): Takes("Machine and versions."),
    ("GET", "/features"): Takes("What the server can do."),
    ("GET", "/openapi.json"): Takes("This document."),
    ("GET", "/embeddings"): Takes("Names of embeddings."),
    ("GET", "/extensions"): Takes("Scripts of the front end and of packs."),
    ("GET", "/extensions/{pack}/{path}"): Takes("A file of a pack."),
    ("GET", "/models"): Takes("Kinds of models."),
    ("GET", "/models/{folder}"): Takes("Files of one kind."),
    ("GET", "/view_metadata/{folder_name}"): Takes("Metadata of a safetensors file.", {"filename": TEXT}),
    ("GET", "/experiment/models"): Takes("Kinds of models and their folders."),
    ("GET", "/experiment/models/{folder}"): Takes("Files of one kind with sizes and times."),
    ("GET", "/experiment/models/preview/{folder}/{path_index}/{filename}"): Takes("Preview picture of a model file."),
    ("POST", "/upload/image"): Takes("Store a file.", body=UPLOAD, media="multipart/form-data"),
    ("POST", "/upload/mask"): Takes("Store a picture with another one's alpha.", body=MASK, media="multipart/form-data"),
    ("GET", "/view"): Takes(
        "A file of input, output or temp.",
        {
            "filename": TEXT,
            "type": FOLDER_TYPE,
            "subfolder": TEXT,
            "preview": TEXT,
            "channel": {"type": "string", "enum": ["rgba", "rgb", "a"]},
        },
    ),
    ("GET", "/users"): Takes("Users."),
    ("POST", "/users"): Takes("Add a user.", body=an_object(("username",), username=TEXT)),
    ("GET", "/settings"): Takes("All settings."),
    ("POST", "/settings"): Takes("Change settings.", body={"type": "object"}),
    ("GET", "/settings/{id}"): Takes("One setting."),
    ("POST", "/settings/{id}"): Takes("Change one setting.", body=ANYTHING),
    ("GET", "/userdata"): Takes("Files of a user's folder.", {"dir": TEXT, "recurse": TRUTH, "full_info": TRUTH, "split": TRUTH}),
    ("GET", "/v2/userdata"): Takes("Files and folders of a user.", {"path": TEXT}),
    ("GET", "/userdata/{file}"): Takes("A user's file."),
    ("POST", "/userdata/{file}"): Takes("Write a user's file.", USERDATA_QUERY, {"type": "string"}, "application/octet-stream"),
    ("DELETE", "/userdata/{file}"): Takes("Delete a user's file."),
    ("POST", "/userdata/{file}/move/{dest}"): Takes("Rename a user's file.", USERDATA_QUERY),
    ("GET", "/workflow_templates"): Takes("Example workflows of packs."),
    ("GET", "/api/workflow_templates/{pack}/{path}"): Takes("An example workflow."),
    ("GET", "/i18n"): Takes("Translations of packs."),
    ("GET", "/templates/{path}"): Takes("A file of the template package."),
    ("GET", "/docs/{path}"): Takes("A file of the help package."),
    ("GET", "/internal/logs"): Takes("The last lines of the log."),
    ("GET", "/internal/logs/raw"): Takes("The last lines of the log with their times."),
    ("PATCH", "/internal/logs/subscribe"): Takes(
        "Log lines over the websocket.", body=an_object(("clientId", "enabled"), clientId=TEXT, enabled=FLAG)
    ),
    ("GET", "/internal/folder_paths"): Takes("Folders by kind."),
    ("GET", "/internal/files/{directory_type}"): Takes("Files of one folder, newest first."),
}

ERROR = an_object(
    ("error",),
    error=an_object(("type", "message"), type=TEXT, message=TEXT, details=TEXT, extra_info={"type": "object"}),
    node_errors={"type": "object"},
)


def listed_routes(app: web.Application) -> Iterator[tuple[str, str]]:
    """(method, path) of every route that the document lists."""
    for resource in app.router.resources():
        path = re.sub(r":[^}]*}", "}", resource.canonical)
        twin = path.startswith("/api/") and not path.startswith("/api/workflow_templates/")
        if twin or path in ("/ws", "/{path}"):
            continue
        for route in resource:
            if route.method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
                yield route.method, path


def operation(method: str, path: str) -> dict[str, Any]:
    """One operation object."""
    takes = TABLE.get((method, path), Takes("A route of a pack."))
    parameters = [{"name": name, "in": "path", "required": True, "schema": TEXT} for name in re.findall(r"{(\w+)}", path)]
    parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in takes.query.items()]
    if takes.lane:
        parameters.append({"name": HEADER, "in": "header", "schema": TEXT})
    refusal = {"description": "Refused; `type` says why.", "content": {"application/json": {"schema": ERROR}}}
    told: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{method.lower()}{path}").strip("_"),
        "summary": takes.summary,
        "responses": {"2XX": {"description": "Done."}, "4XX": refusal},
    }
    if parameters:
        told["parameters"] = parameters
    if takes.body is not None:
        told["requestBody"] = {"required": takes.required, "content": {takes.media: {"schema": takes.body}}}
    return told


def document(app: web.Application) -> dict[str, Any]:
    """The OpenAPI document of an application's routes."""
    paths: dict[str, dict[str, Any]] = {}
    for method, path in listed_routes(app):
        paths.setdefault(path, {}).setdefault(method.lower(), operation(method, path))
    about = {"title": "ComfyUI-compatible multi-GPU server", "version": VERSION}
    return {"openapi": "3.1.0", "info": about, "paths": dict(sorted(paths.items()))}


def routes(server: PromptServer) -> web.RouteTableDef:
    """`/openapi.json`."""
    table = web.RouteTableDef()

    @table.get("/openapi.json")
    async def openapi(request: web.Request) -> web.Response:
        return json_response(document(server.app))

    return table
