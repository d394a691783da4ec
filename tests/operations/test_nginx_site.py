"""The nginx site by itself: what is in the repository, what the generator refuses, what nginx passes on and what it does not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.site import free_port
from tests.operations.proxy import Proxy, command, echo, nginx, seen
from tools import make_nginx

ROOT = Path(__file__).resolve().parents[2]


def make(*flags: str) -> subprocess.CompletedProcess[str]:
    tool = [sys.executable, str(ROOT / "tools/make_nginx.py"), *flags]
    return subprocess.run(tool, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Four lanes in front of a backend that says what it got. The limit is out of the way."""
    with echo() as port, nginx(tmp_path_factory.mktemp("nginx"), port, rate=10_000, burst=10_000) as running:
        yield running


def test_the_files_in_the_repository_are_the_generators() -> None:
    assert (ROOT / make_nginx.SITE).read_text(encoding="utf-8") == make().stdout
    assert (ROOT / make_nginx.STANDALONE).read_text(encoding="utf-8") == make_nginx.ALONE


def test_the_site_has_the_ports_of_the_contract_and_only_what_sites_available_may_hold() -> None:
    text = re.sub(r"#.*", "", (ROOT / make_nginx.SITE).read_text(encoding="utf-8"))
    assert re.findall(r"listen (\S+);", text) == ["8181", "8182", "8183", "8184", "8180"]
    assert set(re.findall(r"^(\w+)", text, re.MULTILINE)) == {"map", "limit_req_zone", "server"}
    assert "client_max_body_size 100m;" in text
    assert "proxy_read_timeout 600s;" in text
    assert "zone=comfy_prompts:10m rate=10r/s;" in text
    assert set(re.findall(r"limit_req zone=\w+ (burst=\d+)", text)) == {"burst=20"}


@pytest.mark.parametrize("flags", [[], ["--gpus", "1"], ["--gpus", "8"], ["--gpus", "12", "--first-port", "9001", "--path-port", "9000"]])
def test_nginx_takes_the_site(flags: list[str], tmp_path: Path) -> None:
    assert make(*flags, "--to", str(tmp_path)).returncode == 0
    tried = subprocess.run([*command(tmp_path), "-t"], capture_output=True, text=True, check=False)
    assert tried.returncode == 0, tried.stderr
    assert "warn" not in tried.stderr


def test_eight_lanes_leave_the_backends_port_alone() -> None:
    assert make_nginx.Site(gpus=8).ports == [8181, 8182, 8183, 8184, 8185, 8186, 8187, 8189]
    assert make_nginx.Site(gpus=2, first_port=9000, path_port=9001, backend="10.0.0.1:9000").ports == [9002, 9003]


@pytest.mark.parametrize(
    "flags",
    [
        ["--gpus", "0"],
        ["--gpus", "65"],
        ["--gpus", "x"],
        ["--first-port", "65534"],
        ["--backend", "host"],
        ["--backend", "a;b:1"],
        ["--rate", "0"],
    ],
)
def test_what_makes_no_sense_is_refused(flags: list[str]) -> None:
    refused = make(*flags)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "error:" in refused.stderr


@pytest.mark.parametrize("gpu", range(4))
@pytest.mark.parametrize(
    "given",
    [[], [("X-TARGET-GPU", "9")], [("x-target-gpu", "2"), ("X-Target-Gpu", "auto")], [("X_TARGET_GPU", "3")]],
    ids=["none", "another", "twice", "underscores"],
)
def test_each_port_overwrites_the_header(proxy: Proxy, gpu: int, given: list[tuple[str, str]]) -> None:
    status, _, body = proxy.ask(proxy.site.ports[gpu], "/prompt", "POST", given, b"{}")
    assert status == 200
    assert seen(body, "X-TARGET-GPU") == [str(gpu)]
    assert seen(body, "X_TARGET_GPU") == []


def test_the_server_learns_who_asked_and_for_which_host(proxy: Proxy) -> None:
    port = proxy.site.ports[0]
    _, _, body = proxy.ask(port, "/queue", headers=[("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Host", "evil.example")])
    assert seen(body, "Host") == seen(body, "X-Forwarded-Host") == [f"127.0.0.1:{port}"]
    assert seen(body, "X-Forwarded-For") == ["203.0.113.9, 127.0.0.1"]
    assert seen(body, "X-Forwarded-Proto") == ["http"]
    assert seen(body, "X-Real-IP") == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("asked", "gpu", "path"),
    [
        ("/gpu0/", "0", "/"),
        ("/gpu3/prompt?a=1", "3", "/prompt?a=1"),
        ("/gpu2/api/userdata/workflows%2Fa%20b.json", "2", "/api/userdata/workflows%2Fa%20b.json"),
        ("/gpu1/view?filename=x&subfolder=/gpu3/", "1", "/view?filename=x&subfolder=/gpu3/"),
        ("/gpu1/gpu2/x", "1", "/gpu2/x"),
        ("/queue", "auto", "/queue"),
        ("/gpu4/queue", "auto", "/gpu4/queue"),
    ],
)
def test_the_variant_by_path(proxy: Proxy, asked: str, gpu: str, path: str) -> None:
    status, _, body = proxy.ask(proxy.site.path_port, asked, headers=[("X-TARGET-GPU", "3")])
    assert (status, json.loads(body)["path"], seen(body, "X-TARGET-GPU")) == (200, path, [gpu])


def test_a_path_without_its_slash_is_sent_on(proxy: Proxy) -> None:
    status, headers, _ = proxy.ask(proxy.site.path_port, "/gpu2?workflow=1")
    assert (status, headers["location"]) == (301, "/gpu2/?workflow=1")


def test_too_many_prompts_are_refused_and_nothing_else_is(tmp_path: Path) -> None:
    """The limit is one prompt a second here, so that no machine is too slow to run into it."""
    with echo() as port, nginx(tmp_path, port, rate=1, burst=2) as proxy:

        def until_refused(port: int, path: str) -> tuple[int, dict[str, str], bytes]:
            for _ in range(300):
                answer = proxy.ask(port, path, "POST", body=b"{}")
                if answer[0] != 200:
                    return answer
            raise AssertionError("300 prompts in a row passed")

        first, second = proxy.site.ports[:2]
        for where, path in ((first, "/prompt"), (second, "/api/prompt"), (proxy.site.path_port, "/gpu1/api/prompt")):
            status, headers, body = until_refused(where, path)
            assert (status, headers["content-type"]) == (429, "application/json")
            assert json.loads(body)["error"]["type"] == "rate_limited"
            assert json.loads(body)["node_errors"] == {}
            others = [
                ("GET", "/prompt"),
                ("POST", "/queue"),
                ("POST", "/upload/image"),
                ("GET", "/api/prompt"),
                ("POST", "/prompts"),
                ("GET", "/"),
            ]
            assert {proxy.ask(where, path, method)[0] for method, path in others for _ in range(20)} == {200}


def test_the_servers_own_refusals_pass_untouched(proxy: Proxy) -> None:
    for status in (400, 413, 429, 502, 503):
        answer, _, body = proxy.ask(proxy.site.ports[0], "/prompt", "POST", [("X-Answer", str(status))], b"{}")
        assert (answer, json.loads(body)["path"]) == (status, "/prompt")


def test_a_body_over_the_limit_is_refused_before_it_is_sent(proxy: Proxy) -> None:
    ask = [("Content-Length", str(100 * 1024**2 + 1))]
    status, headers, body = proxy.ask(proxy.site.ports[1], "/upload/image", "PUT", ask)
    assert (status, headers["content-type"]) == (413, "application/json")
    assert json.loads(body)["error"]["type"] == "body_too_large"


@pytest.mark.parametrize(
    "path",
    ["/metrics", "/api/metrics", "/internal/logs", "/debug/queues", "/api/debug/queues", "/weights", "/weights/preload", "//metrics",
     "/%6detrics", "/a/../metrics", "/a%2F..%2Fmetrics", "/./weights/"],
)  # fmt: skip
def test_what_tells_about_the_machine_is_for_private_networks(path: str, proxy: Proxy, closed: Proxy) -> None:
    assert proxy.ask(proxy.site.ports[0], path)[0] == 200
    assert closed.ask(closed.site.ports[0], path)[0] == 403
    assert closed.ask(closed.site.path_port, path)[0] == 403
    assert closed.ask(closed.site.path_port, "/gpu1" + path)[0] == 403


@pytest.mark.parametrize(
    "path", ["/", "/queue", "/prompt", "/metricsx", "/view?filename=/metrics", "/extensions/debug/a.js", "/api/history"]
)
def test_the_rest_is_for_all(path: str, closed: Proxy) -> None:
    assert closed.ask(closed.site.ports[0], path)[0] == 200
    assert closed.ask(closed.site.path_port, "/gpu1" + path)[0] == 200


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """To this site 127.0.0.1 is no private network: we are the stranger."""
    with echo() as port:
        folder = tmp_path_factory.mktemp("closed")
        with nginx(folder, port, change=lambda text: text.replace("allow 127.0.0.0/8;", "")) as running:
            yield running


def test_a_restart_of_the_backend_needs_none_of_nginx(tmp_path: Path) -> None:
    port = free_port()
    with nginx(tmp_path, port) as proxy:
        for _ in range(2):
            status, headers, body = proxy.ask(proxy.site.ports[2], "/queue")
            assert (status, headers["content-type"]) == (502, "application/json")
            assert json.loads(body)["error"]["type"] == "server_unavailable"
            with echo(port):
                assert proxy.ask(proxy.site.ports[2], "/queue")[0] == 200
