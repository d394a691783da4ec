from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from comfy.config import Config
from comfy.errors import ComfyError, HostNotAllowed, NodeError, PromptInvalid
from comfy.web.errors import error_body, json_response
from comfy.web.middleware import cache_control, host_policy
from server import PromptServer
from tests.unit.web.helpers import Site, front_end, graph, with_site


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("/assets/a.js", 200, "no-cache"),
        ("/assets/a.css", 404, "no-cache"),
        ("/templates/index.json", 200, "no-cache"),
        ("/templates/index.fr.json", 200, "no-cache"),
        ("/templates/other.json", 200, None),
        ("/a.PNG", 404, "public, max-age=3600"),
        ("/a.webp", 200, "public, max-age=86400"),
        ("/a.webp", 206, "public, max-age=86400"),
        ("/a.jpg", 301, "public, max-age=86400"),
        ("/a.jpg", 302, "no-cache"),
        ("/a.jpg", 304, None),
        ("/a.jpg", 500, None),
        ("/view", 200, None),
        ("/queue", 200, None),
    ],
)
def test_cache_headers_by_path_and_status(path: str, status: int, expected: str | None) -> None:
    assert cache_control(path, status) == expected


def test_cache_headers_come_with_the_final_status(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        for path, status, expected in [
            ("/missing.png", 404, "public, max-age=3600"),
            ("/a.png", 200, "public, max-age=86400"),
            ("/assets/a.js", 200, "no-cache"),
        ]:
            async with site.http.get(path) as answer:
                assert (answer.status, answer.headers["Cache-Control"]) == (status, expected)
        async with site.http.get("/a.png", headers={"Range": "bytes=1-3"}) as answer:
            assert (answer.status, answer.headers["Cache-Control"], await answer.read()) == (206, "public, max-age=86400", b"PNG")
            etag = answer.headers["ETag"]
        async with site.http.get("/a.png", headers={"If-None-Match": etag}) as answer:
            assert (answer.status, answer.headers.get("Cache-Control")) == (304, None)
        async with site.http.get("/") as answer:
            assert {name: answer.headers[name] for name in ("Cache-Control", "Pragma", "Expires")} == {
                "Cache-Control": "no-cache",
                "Pragma": "no-cache",
                "Expires": "0",
            }
        async with site.http.get("/queue") as answer:
            assert "Cache-Control" not in answer.headers

    with_site(test, front_end_root=front_end(tmp_path))


def test_options_answers_200_on_any_path() -> None:
    async def test(site: Site) -> None:
        for path in ("/prompt", "/no/such/path", "/api/queue"):
            await site.empty("OPTIONS", path)

    with_site(test)


def test_a_wrong_method_is_405_with_allow() -> None:
    async def test(site: Site) -> None:
        for method, path, allow in [
            ("PATCH", "/queue", "GET,HEAD,POST"),
            ("DELETE", "/api/prompt", "GET,HEAD,POST"),
            ("POST", "/system_stats", "GET,HEAD"),
            ("GET", "/interrupt", "POST"),
            ("POST", "/no/such/path", "GET,HEAD"),
            ("PUT", "/no/such/path", "GET,HEAD"),
        ]:
            async with site.http.request(method, path) as answer:
                assert (answer.status, answer.headers["Allow"]) == (405, allow), (method, path)
                assert await answer.text() == "405: Method Not Allowed"

    with_site(test)


def test_head_gives_the_headers_of_get_on_every_get_route(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        for path in ("/", "/prompt", "/queue", "/queue/all", "/history", "/features", "/api/object_info", "/health", "/a.png"):
            async with site.http.get(path) as get, site.http.head(path) as head:
                assert (head.status, await head.read()) == (200, b"")
                assert head.headers["Content-Length"] == get.headers["Content-Length"]
                assert head.headers["Content-Type"] == get.headers["Content-Type"]

    with_site(test, front_end_root=front_end(tmp_path))


def test_every_answer_forbids_guessing_its_type() -> None:
    async def test(site: Site) -> None:
        for path in ("/", "/queue", "/missing", "/interrupt"):
            async with site.http.get(path) as answer:
                assert answer.headers["X-Content-Type-Options"] == "nosniff"

    with_site(test)


@pytest.mark.parametrize(("origin", "credentials"), [("*", None), ("http://friend.com", "true")])
def test_cors_headers_are_on_every_answer(origin: str, credentials: str | None) -> None:
    async def test(site: Site) -> None:
        for method, path, status in [
            ("GET", "/queue", 200),
            ("OPTIONS", "/prompt", 200),
            ("PATCH", "/queue", 405),
            ("GET", "/missing", 404),
            ("POST", "/prompt", 400),
            ("GET", "/boom", 500),
        ]:
            async with site.http.request(method, path) as answer:
                assert answer.status == status
                assert answer.headers["Access-Control-Allow-Origin"] == origin
                assert answer.headers.get("Access-Control-Allow-Credentials") == credentials
                assert {"PATCH", "POST", "GET", "DELETE", "PUT", "OPTIONS"} <= set(
                    answer.headers["Access-Control-Allow-Methods"].split(", ")
                )
                assert {"Content-Type", "Authorization", "Comfy-User", "X-TARGET-GPU"} <= set(
                    answer.headers["Access-Control-Allow-Headers"].split(", ")
                )

    with_site(test, cors_origin=origin, prepare=with_failing_route)


def with_failing_route(server: PromptServer) -> None:
    async def boom(request: web.Request) -> web.Response:
        raise ZeroDivisionError("secret detail")

    async def broken(request: web.Request) -> web.Response:
        raise NodeError("It cannot.", width=3.5, bad=float("nan"))

    server.routes.get("/boom")(boom)
    server.routes.get("/broken")(broken)


def test_without_the_flag_there_are_no_cors_headers() -> None:
    async def test(site: Site) -> None:
        async with site.http.get("/queue") as answer:
            assert not [name for name in answer.headers if name.startswith("Access-Control")]

    with_site(test)


def test_an_unknown_exception_is_a_500_without_its_text() -> None:
    async def test(site: Site) -> None:
        error = await site.error("GET", "/boom", 500)
        assert error["type"] == "internal_error"
        assert "secret" not in json.dumps(error)

    with_site(test, prepare=with_failing_route)


def test_an_error_of_ours_tells_its_facts_and_no_nan() -> None:
    async def test(site: Site) -> None:
        error = await site.error("GET", "/broken", 500)
        assert error["type"] == "node_error"
        assert error["details"] == "It cannot."
        assert error["extra_info"] == {"width": 3.5, "bad": None}

    with_site(test, prepare=with_failing_route)


def test_a_prompt_error_keeps_the_contracts_words() -> None:
    assert error_body(PromptInvalid({"type": "t"}, {"1": {}})) == {"error": {"type": "t"}, "node_errors": {"1": {}}}
    assert error_body(ComfyError("Why.", field="x"))["error"]["extra_info"] == {"field": "x"}


def test_json_never_holds_a_bare_nan() -> None:
    answer = json_response({"a": [float("nan"), float("inf")], "b": 1.5})
    assert answer.body == b'{"a": [null, null], "b": 1.5}'


def test_foreign_hosts_and_sites_are_refused_everywhere() -> None:
    async def test(site: Site) -> None:
        assert (await site.error("GET", "/queue", 403, headers={"Host": "evil.com"}))["type"] == "host_not_allowed"
        assert (await site.error("GET", "/missing", 403, headers={"Host": "evil.com"}))["type"] == "host_not_allowed"
        refused = {"Origin": "http://evil.com"}
        for method, path in [("POST", "/prompt"), ("GET", "/history"), ("GET", "/ws"), ("POST", "/api/interrupt"), ("GET", "/")]:
            assert (await site.error(method, path, 403, headers=refused))["type"] == "cross_site_refused"
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await site.http.ws_connect("/ws", headers=refused)
        assert caught.value.status == 403
        assert site.server.scheduler.remaining() == 0

    with_site(test)


def test_a_name_given_to_listen_is_answered() -> None:
    policy = host_policy(Config(listen=("box.lan", "::"), allowed_hosts=("other.lan",)))
    for host in ("box.lan:8188", "other.lan"):
        policy.check(host)
    for host in ("evil.com", ""):
        with pytest.raises(HostNotAllowed):
            policy.check(host)


def test_curl_with_a_form_content_type_is_served() -> None:
    async def test(site: Site) -> None:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await site.json("POST", "/prompt", data=json.dumps(graph()), headers=headers)
        assert answer["node_errors"] == {}

    with_site(test)


def test_bodies_over_the_limit_are_413_announced_or_not() -> None:
    async def chunks() -> Any:
        for _ in range(3):
            yield b"x" * 50

    async def test(site: Site) -> None:
        for path in ("/queue", "/interrupt", "/history"):
            assert (await site.error("POST", path, 413, data=b"x" * 101))["type"] == "body_too_large"
            error = await site.error("POST", path, 413, data=chunks())
            assert (error["type"], error["extra_info"]) == ("body_too_large", {"limit_bytes": 100})

    with_site(test, max_upload_bytes=100)


@pytest.mark.parametrize(("accept", "encoding"), [("gzip", "gzip"), ("gzip, deflate", "deflate"), ("deflate", None), ("identity", None)])
def test_json_is_compressed_only_for_clients_that_take_gzip(accept: str, encoding: str | None) -> None:
    async def test(site: Site) -> None:
        async with (
            aiohttp.ClientSession(site.url, auto_decompress=False) as http,
            http.get("/features", headers={"Accept-Encoding": accept}) as answer,
        ):
            body = await answer.read()
            assert answer.headers.get("Content-Encoding") == encoding
        plain = gzip.decompress(body) if encoding == "gzip" else zlib.decompress(body) if encoding else body
        assert json.loads(plain)["supports_preview_metadata"] is True

    with_site(test, compress_responses=True)


def test_files_are_never_compressed_on_the_fly(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        async with site.http.get("/assets/a.js", headers={"Accept-Encoding": "gzip"}) as answer:
            assert "Content-Encoding" not in answer.headers

    with_site(test, compress_responses=True, front_end_root=front_end(tmp_path))
