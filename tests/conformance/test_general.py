"""http-api.md section 1: twins, methods, JSON, limits, files, cache headers, origins, CORS, compression, users."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from tests.conformance.site import Answer, Site, node

GETS = (
    "/", "/prompt", "/queue", "/history", "/history/x", "/object_info/KSampler", "/features", "/system_stats", "/embeddings", "/extensions",
    "/models", "/models/checkpoints", "/experiment/models", "/experiment/models/checkpoints", "/users", "/settings", "/settings/a",
    "/userdata?dir=workflows", "/v2/userdata", "/workflow_templates", "/i18n", "/queue/all", "/debug/queues", "/lanes", "/health", "/ready",
    "/probe/runs",
)  # fmt: skip
POSTS = ("/prompt", "/queue", "/interrupt", "/free", "/history", "/users", "/settings", "/upload/image", "/upload/mask", "/probe/open/x")
CHANGING = {"/system_stats", "/ready", "/lanes", "/queue/all", "/userdata?dir=workflows"}


@pytest.mark.parametrize("path", GETS)
def test_every_dynamic_route_has_a_twin_and_answers_head(site: Site, path: str) -> None:
    plain, twin, head = site.get(path), site.get("/api" + path), site.request("HEAD", path)
    assert (plain.status, plain.headers.get("Content-Type")) == (twin.status, twin.headers.get("Content-Type"))
    assert (head.status, head.body) == (plain.status, b"")
    assert head.headers.get("Content-Type") == plain.headers.get("Content-Type")
    if path not in CHANGING:
        assert plain.body == twin.body
        assert head.headers["Content-Length"] == str(len(plain.body))


@pytest.mark.parametrize("path", POSTS)
def test_post_routes_have_twins(site: Site, path: str) -> None:
    assert site.request("POST", "/api" + path, data=b"[]").status == site.request("POST", path, data=b"[]").status != 405


def test_internal_routes_have_no_twin(site: Site) -> None:
    assert site.get("/internal/folder_paths").status == 200
    assert site.get("/api/internal/folder_paths").status == 404


@pytest.mark.parametrize("path", ["/", "/prompt", "/no/such/path"])
def test_options_is_200_and_empty_everywhere(site: Site, path: str) -> None:
    answer = site.request("OPTIONS", path)
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/prompt", {"GET", "HEAD", "POST"}),
        ("PUT", "/history", {"GET", "HEAD", "POST"}),
        ("POST", "/object_info", {"GET", "HEAD"}),
        ("POST", "/no/such/path", {"GET", "HEAD"}),
        ("PUT", "/no/such/path", {"GET", "HEAD"}),
        ("GET", "/interrupt", {"POST"}),
        ("POST", "/userdata/a/b", {"GET", "HEAD"}),
    ],
)
def test_a_wrong_method_is_405(site: Site, method: str, path: str, allowed: set[str]) -> None:
    answer = site.request(method, path)
    assert answer.status == 405
    assert set(answer.headers["Allow"].split(",")) == allowed
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.body == b"405: Method Not Allowed"


def test_an_unknown_path_is_404_without_a_body(site: Site) -> None:
    answer = site.get("/no/such/path")
    assert (answer.status, answer.body, answer.headers["Content-Type"]) == (404, b"", "application/octet-stream")


def test_json_is_ascii_with_default_separators(site: Site) -> None:
    site.post("/settings", {"name": "é", "list": [1, 2]})
    answer = site.get("/settings")
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.body.isascii()
    assert b'"list": [1, 2]' in answer.body


def test_empty_answers_have_no_content_type(site: Site) -> None:
    for answer in (site.post("/interrupt"), site.post("/queue", {}), site.post("/free", {}), site.post("/history", {})):
        assert (answer.status, answer.body, answer.headers["Content-Length"]) == (200, b"", "0")
        assert "Content-Type" not in answer.headers


@pytest.mark.parametrize("path", ["/prompt", "/queue", "/free", "/history", "/settings", "/users"])
@pytest.mark.parametrize("body", [b"{", b"", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_is_a_typed_400(site: Site, path: str, body: bytes) -> None:
    answer = site.request("POST", path, data=body)
    assert (answer.status, answer.error()) == (400, "invalid_json")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/json"])
def test_the_content_type_of_json_is_ignored(site: Site, kind: str) -> None:
    body = json.dumps({"prompt": {"1": node("NoSuchNode")}}).encode()
    answer = site.request("POST", "/prompt", data=body, headers={"Content-Type": kind})
    assert (answer.status, answer.error()) == (400, "invalid_prompt")


@pytest.mark.parametrize(
    ("path", "method"), [("/prompt", "POST"), ("/settings", "POST"), ("/userdata/big", "POST"), ("/upload/image", "POST")]
)
def test_a_body_over_the_limit_is_413(odd: Site, path: str, method: str) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"} if path == "/upload/image" else {}
    answer = odd.request(method, path, data=b'"' + b"x" * 2**20 + b'"', headers=headers)
    assert answer.status == 413
    assert odd.get("/features").json()["max_upload_size"] == 2**20


# files


def stored(site: Site) -> tuple[str, bytes]:
    data = b"0123456789" * 10
    assert site.request("POST", "/userdata/range.bin", data=data).status == 200
    return "/userdata/range.bin", data


def test_files_have_an_etag_and_a_date_and_answer_ranges(site: Site) -> None:
    path, data = stored(site)
    whole = site.get(path)
    assert (whole.status, whole.body) == (200, data)
    assert whole.headers["Accept-Ranges"] == "bytes"
    mtime, size = whole.headers["ETag"].strip('"').split("-")
    assert int(size, 16) == len(data)
    assert int(mtime, 16) > 10**18
    part = site.get(path, Range="bytes=10-19")
    assert (part.status, part.body, part.headers["Content-Range"]) == (206, data[10:20], "bytes 10-19/100")
    assert site.get(path, Range="bytes=100-").status == 416
    assert site.get(path, If_None_Match=whole.headers["ETag"]).status == 304
    assert site.get(path, If_Modified_Since=whole.headers["Last-Modified"]).status == 304


def test_a_compressed_sibling_is_served_when_accepted(site: Site) -> None:
    site.request("POST", "/userdata/sibling.txt", data=b"plain")
    site.request("POST", "/userdata/sibling.txt.gz", data=gzip.compress(b"small"))
    answer = site.get("/userdata/sibling.txt", Accept_Encoding="gzip")
    assert (answer.headers["Content-Encoding"], gzip.decompress(answer.body)) == ("gzip", b"small")
    assert "Accept-Encoding" in answer.headers["Vary"]
    assert site.get("/userdata/sibling.txt").body == b"plain"


@pytest.mark.parametrize(
    ("path", "cache"),
    [
        ("/scripts/none.js", "no-cache"),
        ("/none.css", "no-cache"),
        ("/templates/index.json", "no-cache"),
        ("/templates/index.fr.json", "no-cache"),
        ("/none.PNG", "public, max-age=3600"),
        ("/none.webp", "public, max-age=3600"),
        ("/", "no-cache"),
        ("/prompt", None),
        ("/view?filename=none.png", None),
        ("/none.txt", None),
    ],
)
def test_cache_headers_by_path(site: Site, path: str, cache: str | None) -> None:
    assert site.get(path).headers.get("Cache-Control") == cache


def test_the_front_page_is_never_cached(site: Site) -> None:
    headers = site.get("/").headers
    assert (headers["Pragma"], headers["Expires"]) == ("no-cache", "0")


def test_a_picture_of_the_front_end_may_be_cached_for_a_day(site: Site) -> None:
    found = site.get("/assets/images/comfy-logo-single.svg").status, site.get("/assets/images/default-template.png")
    if found[1].status == 200:
        assert found[1].headers["Cache-Control"] == "public, max-age=86400"
    else:
        assert found[1].headers["Cache-Control"] == "public, max-age=3600"


# origins

ORIGINS = [
    ("127.0.0.1:{port}", "http://127.0.0.1:{port}", 200),
    ("127.0.0.1:{port}", "http://127.0.0.1", 200),
    ("127.0.0.1", "http://127.0.0.1:{port}", 200),
    ("127.0.0.1:{port}", "http://127.0.0.1:1", 403),
    ("127.0.0.1:{port}", "http://localhost:{port}", 403),
    ("127.0.0.1:{port}", "http://evil.example", 403),
    ("127.0.0.1:{port}", "null", 403),
    ("evil.example", "http://other.example", 403),
    ("evil.example", None, 403),
    ("127.0.0.1:{port}", "http://127.0.0.1:abc", 403),
    ("localhost:{port}", "http://localhost:{port}", 200),
    ("[::1]:{port}", "http://[::1]:{port}", 200),
]


@pytest.mark.parametrize(("host", "origin", "status"), ORIGINS)
def test_hosts_and_origins(site: Site, host: str, origin: str | None, status: int) -> None:
    port = site.url.rpartition(":")[2]
    headers = {"Host": host.format(port=port)} | ({} if origin is None else {"Origin": origin.format(port=port)})
    answer = site.request("GET", "/prompt", headers=headers)
    assert answer.status == status
    if status == 403:
        assert answer.error() in ("host_not_allowed", "cross_site_refused")


@pytest.mark.parametrize("fetch", ["cross-site", "same-site"])
def test_a_page_of_another_site_cannot_post(site: Site, fetch: str) -> None:
    answer = site.request("POST", "/interrupt", headers={"Sec-Fetch-Site": fetch, "Sec-Fetch-Mode": "no-cors"})
    assert (answer.status, answer.error()) == (403, "cross_site_refused")


# the server with flags


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/prompt"), ("DELETE", "/prompt"), ("GET", "/none"), ("OPTIONS", "/x"), ("POST", "/queue")]
)
def test_cors_headers_are_on_every_answer(odd: Site, method: str, path: str) -> None:
    headers = odd.request(method, path, headers={"Origin": "http://site.example"}).headers
    assert headers["Access-Control-Allow-Origin"] == "http://site.example"
    assert {"POST", "GET", "DELETE", "PUT", "OPTIONS", "PATCH"} <= set(headers["Access-Control-Allow-Methods"].split(", "))
    assert {"Content-Type", "Authorization", "Comfy-User"} <= set(headers["Access-Control-Allow-Headers"].split(", "))
    assert headers["Access-Control-Allow-Credentials"] == "true"


def test_cors_for_one_site_is_not_for_others(odd: Site) -> None:
    assert odd.request("POST", "/interrupt", headers={"Origin": "http://site.example"}).status == 200
    assert odd.request("POST", "/interrupt", headers={"Origin": "http://evil.example"}).status == 403


def unpacked(answer: Answer) -> bytes:
    coding = answer.headers["Content-Encoding"]
    return gzip.decompress(answer.body) if coding == "gzip" else zlib.decompress(answer.body)


@pytest.mark.parametrize("accept", ["gzip", "gzip, deflate"])
def test_json_is_compressed_when_the_client_takes_gzip(odd: Site, accept: str) -> None:
    assert "KSampler" in json.loads(unpacked(odd.get("/object_info/KSampler", Accept_Encoding=accept)))
    assert "Content-Encoding" not in odd.get("/object_info/KSampler").headers
    assert "Content-Encoding" not in odd.get("/object_info/KSampler", Accept_Encoding="br").headers


def test_nothing_is_compressed_without_the_flag(site: Site) -> None:
    assert "Content-Encoding" not in site.get("/object_info/KSampler", Accept_Encoding="gzip").headers


def test_users_of_multi_user_mode(odd: Site) -> None:
    created = odd.post("/users", {"username": " Bob & co "})
    assert created.status == 200
    bob = created.json()
    assert bob.startswith("Bob-co_")
    assert odd.post("/users", {"username": "Bob & co"}).status == 400
    assert odd.get("/users").json()["users"][bob] == "Bob & co"
    assert odd.post("/settings", {"mine": 1}, comfy_user=bob).status == 200
    assert odd.get("/settings", comfy_user=bob).json() == {"mine": 1}
    assert "mine" not in odd.get("/settings", comfy_user="default").body.decode()
    assert odd.get("/settings", comfy_user="nobody").status == 401
    assert odd.get("/v2/userdata", comfy_user="nobody").status == 403
    assert odd.get("/userdata?dir=x", comfy_user="../default").status == 403
