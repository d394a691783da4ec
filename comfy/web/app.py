"""All routes of the server: each dynamic one twice, as `/x` and `/api/x` (contract: http-api.md section 1)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from aiohttp import web

from comfy.web import (
    extensions,
    files,
    frontend,
    history,
    info,
    internal,
    lanes,
    metrics,
    models,
    openapi,
    prompt,
    queue,
    settings,
    userdata,
    users,
    view,
    websocket,
)

if TYPE_CHECKING:
    from server import PromptServer

log = logging.getLogger(__name__)

API = "/api"
NO_TWIN = (API + "/", "/internal/")

#: makers of route tables, by resource; an earlier one wins where two name the same path
TABLES: tuple[Callable[[PromptServer], web.RouteTableDef], ...] = (
    websocket.routes,
    frontend.routes,
    prompt.routes,
    queue.routes,
    lanes.routes,
    metrics.routes,
    history.routes,
    info.routes,
    files.routes,
    view.routes,
    users.routes,
    settings.routes,
    userdata.routes,
    models.routes,
    extensions.routes,
    internal.routes,
    openapi.routes,
)


def has_twin(path: str) -> bool:
    """Whether a dynamic route is also served under /api."""
    return not path.startswith(NO_TWIN)


def add_table(app: web.Application, table: web.RouteTableDef) -> None:
    """Add every route of `table`, and its twin. One that aiohttp refuses (a second route for one path) is logged and left out."""
    for route in table:
        try:
            route.register(app.router)
            if isinstance(route, web.RouteDef) and has_twin(route.path):
                kwargs = {key: value for key, value in route.kwargs.items() if key != "name"}
                web.RouteDef(route.method, API + route.path, route.handler, kwargs).register(app.router)
        except (RuntimeError, ValueError) as error:
            log.warning("route %s is left out: %s", route, error)


def add_routes(server: PromptServer) -> None:
    """The server's own routes, then those of custom nodes, then the files of the web root."""
    for make in TABLES:
        add_table(server.app, make(server))
    add_table(server.app, server.routes)
    frontend.add_catch_all(server)
