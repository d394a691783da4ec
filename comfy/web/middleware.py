"""What every request passes on its way in, and every answer on its way out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from comfy.config import Config
from comfy.errors import BodyTooLarge
from comfy.web.errors import errors
from comfy.web.hosts import ANY, HostPolicy, OriginPolicy, is_ip

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_NO_CACHE, _HOUR, _DAY = "no-cache", "public, max-age=3600", "public, max-age=86400"

CORS_METHODS = "POST, GET, DELETE, PUT, PATCH, OPTIONS"
CORS_HEADERS = "Content-Type, Authorization, Comfy-User, X-TARGET-GPU"

OnPrepare = Callable[[web.Request, web.StreamResponse], Awaitable[None]]


def cache_control(path: str, status: int) -> str | None:
    """Cache-Control by request path and status (contract: http-api.md section 1.1), None for none."""
    last = path.rpartition("/")[2]
    if path.endswith((".js", ".css")) or (last.startswith("index") and last.endswith(".json")):
        return _NO_CACHE
    if path.lower().endswith(IMAGE_SUFFIXES):
        if status == 404:
            return _HOUR
        if 200 <= status <= 206 or status in (301, 308):
            return _DAY
        if status in (302, 303, 307):
            return _NO_CACHE
    return None


def cors_headers(origin: str) -> dict[str, str]:
    """Headers of --enable-cors-header. Credentials go with one named site only, never with `*`."""
    headers = {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": CORS_METHODS,
        "Access-Control-Allow-Headers": CORS_HEADERS,
    }
    if origin != ANY:
        headers["Access-Control-Allow-Credentials"] = "true"
    return headers


def header_hook(config: Config) -> OnPrepare:
    """The `on_response_prepare` hook: it sees every answer (files, errors, 405s) with its final status."""
    cors = {} if config.cors_origin is None else cors_headers(config.cors_origin)

    async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
        headers = response.headers
        headers.setdefault("X-Content-Type-Options", "nosniff")
        for name, value in cors.items():
            headers[name] = value
        if cors and config.cors_origin != ANY:
            headers.add(hdrs.VARY, "Origin")
        if request.path == "/":
            headers.setdefault(hdrs.CACHE_CONTROL, _NO_CACHE)
            headers.setdefault(hdrs.PRAGMA, _NO_CACHE)
            headers.setdefault(hdrs.EXPIRES, "0")
        value_or_none = cache_control(request.path, response.status)
        if value_or_none is not None:
            headers.setdefault(hdrs.CACHE_CONTROL, value_or_none)

    return add_headers


def guard(hosts: HostPolicy, origins: OriginPolicy) -> Middleware:
    """A middleware that refuses foreign Host names, other sites' pages and announced bodies over the limit."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        hosts.check(request.headers.get(hdrs.HOST))
        origins.check(request.method, request.headers)
        if request.content_length is not None and request.content_length > request.client_max_size:
            raise BodyTooLarge(limit_bytes=request.client_max_size)
        return await handler(request)

    return check


@web.middleware
async def options(request: web.Request, handler: Handler) -> web.StreamResponse:
    """OPTIONS on any path, known or not: 200 and nothing else."""
    if request.method == hdrs.METH_OPTIONS:
        return web.Response()
    return await handler(request)


@web.middleware
async def compress(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Compress JSON and text when the client takes gzip; never files (contract: http-api.md section 1.4)."""
    response = await handler(request)
    if (
        isinstance(response, web.Response)
        and not response.prepared
        and isinstance(response.body, bytes)
        and response.body
        and response.content_type in ("application/json", "text/plain")
        and "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, "").lower()
    ):
        response.enable_compression()
        response.headers.add(hdrs.VARY, hdrs.ACCEPT_ENCODING)
    return response


def host_policy(config: Config) -> HostPolicy:
    """The Host names to answer to; a name given to --listen is one of them."""
    return HostPolicy([*config.allowed_hosts, *(address for address in config.listen if not is_ip(address))])


def build_app(config: Config) -> web.Application:
    """An application with all middlewares and no routes."""
    checks = guard(host_policy(config), OriginPolicy(config.cors_origin))
    middlewares = [*([compress] if config.compress_responses else []), errors, checks, options]
    app = web.Application(client_max_size=config.max_upload_bytes, middlewares=middlewares)
    app.on_response_prepare.append(header_hook(config))
    return app
