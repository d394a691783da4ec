from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import pytest

from comfy.config import Config
from comfy.web import frontend
from tests.unit.web.helpers import Site, front_end, with_site


def test_the_index_and_the_files_of_the_web_root(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        for path in ("/", "/api/", "/index.html"):
            async with site.http.get(path) as answer:
                assert (answer.status, await answer.text()) == (200, "<!doctype html><title>front</title>")
                assert answer.content_type == "text/html"
        async with site.http.get("/assets/a.js") as answer:
            assert (answer.status, answer.content_type, await answer.text()) == (200, "text/javascript", "export {}")
            assert answer.headers["Accept-Ranges"] == "bytes"
            assert "ETag" in answer.headers
            assert "Last-Modified" in answer.headers

    with_site(test, front_end_root=front_end(tmp_path))


async def raw_get(site: Site, target: str) -> int:
    """Status of a GET whose target goes out exactly as written."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    status = int((await reader.read()).split()[1])
    writer.close()
    await writer.wait_closed()
    return status


def test_what_the_catch_all_refuses(tmp_path: Path) -> None:
    root = front_end(tmp_path)
    (tmp_path / "secret.txt").write_text("secret")
    (root / "out.txt").symlink_to(tmp_path / "secret.txt")
    (root / "out").symlink_to(tmp_path)
    (root / "in.txt").symlink_to(root / "index.html")
    (root / "loop").symlink_to(root / "loop")

    async def test(site: Site) -> None:
        for target, status in [
            ("/in.txt", 200),
            ("/missing", 404),
            ("/assets", 403),
            ("/assets/", 403),
            ("/out.txt", 404),
            ("/out/secret.txt", 404),
            ("/loop", 404),
            ("/../secret.txt", 404),
            ("/%2e%2e/secret.txt", 404),
            ("/assets/..%2f..%2fsecret.txt", 404),
            ("/assets/../../secret.txt", 404),
            ("/..%5csecret.txt", 404),
            ("//etc/passwd", 404),
            ("/%2fetc/passwd", 404),
            ("/a%00.png", 404),
            ("/" + "a" * 300, 404),
            ("/index.html/x", 404),
        ]:
            assert await raw_get(site, target) == status, target

    with_site(test, front_end_root=root)


def test_an_unknown_path_is_an_empty_404(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        async with site.http.get("/no/such") as answer:
            assert (answer.status, answer.content_type, await answer.read()) == (404, "application/octet-stream", b"")

    with_site(test, front_end_root=front_end(tmp_path))


def test_without_a_front_end_a_page_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frontend.importlib.util, "find_spec", lambda name: None)

    async def test(site: Site) -> None:
        async with site.http.get("/") as answer:
            page = await answer.text()
            assert answer.status == 200
            assert "pip install comfyui-frontend-package==" in page
            assert "--front-end-root" in page
        async with site.http.get("/index.html") as answer:
            assert answer.status == 404

    with_site(test)


def test_a_web_root_without_an_index_is_a_404(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        async with site.http.get("/") as answer:
            assert answer.status == 404

    with_site(test, front_end_root=tmp_path)


def test_the_flag_wins_over_the_installed_package(tmp_path: Path) -> None:
    assert frontend.find_web_root(Config(front_end_root=tmp_path)) == tmp_path
    found = frontend.find_web_root(Config())
    assert found is None or (found / "index.html").is_file()


def test_a_version_that_would_have_to_be_fetched_is_said_not_to_be(caplog: pytest.LogCaptureFixture) -> None:
    frontend.find_web_root(Config(args=argparse.Namespace(front_end_version="comfyanonymous/ComfyUI@latest")))
    assert "is not fetched" not in caplog.text
    frontend.find_web_root(Config(args=argparse.Namespace(front_end_version="owner/repo@v1")))
    assert "owner/repo@v1 is not fetched" in caplog.text


def test_a_gzipped_sibling_is_served_to_clients_that_take_it(tmp_path: Path) -> None:
    root = front_end(tmp_path)
    (root / "assets" / "a.js.gz").write_bytes(b"\x1f\x8bnot really")

    async def run(site: Site) -> None:
        site.http._auto_decompress = False
        async with site.http.get("/assets/a.js", headers={"Accept-Encoding": "gzip"}) as answer:
            assert (answer.headers["Content-Encoding"], answer.content_type) == ("gzip", "text/javascript")
            assert "Accept-Encoding" in answer.headers["Vary"]

    with_site(run, front_end_root=root)
