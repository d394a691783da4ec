"""A real nginx over a generated site, and a backend that says what reached it."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tools import make_nginx

NGINX = shutil.which("nginx") or next((path for path in ("/usr/sbin/nginx", "/usr/local/sbin/nginx") if os.path.exists(path)), None)
START_S = 30.0


@dataclass(frozen=True)
class Proxy:
    """A running nginx."""

    site: make_nginx.Site
    folder: Path

    def url(self, gpu: int) -> str:
        """Base address of a lane's port."""
        return f"http://127.0.0.1:{self.site.ports[gpu]}"

    @property
    def path_url(self) -> str:
        """Base address of the variant by path."""
        return f"http://127.0.0.1:{self.site.path_port}"

    def ask(
        self, port: int, path: str, method: str = "GET", headers: list[tuple[str, str]] | None = None, body: bytes = b""
    ) -> tuple[int, dict[str, str], bytes]:
        """One raw request: the path and the headers go out as they are written. Returns status, headers, body."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            own_host = any(name == "Host" for name, _ in headers or [])
            connection.putrequest(method, path, skip_host=own_host, skip_accept_encoding=True)
            for name, value in headers or []:
                connection.putheader(name, value)
            if body or method == "POST":
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()


def free_ports(n: int) -> int:
    """The first of `n` ports in a row that nothing listens on now."""
    for first in range(20_000 + os.getpid() % 5_000, 32_000, n):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + n):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise AssertionError(f"no {n} free ports in a row")


def command(folder: Path, *more: str) -> list[str]:
    """nginx over the standalone file in `folder`. Under root its workers stay root: pytest's folders are root's alone."""
    if NGINX is None:
        pytest.skip("nginx is not installed")
    settings = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")
    return [NGINX, "-p", str(folder), "-c", str(folder / make_nginx.STANDALONE), "-e", "error.log", "-g", settings, *more]


@contextlib.contextmanager
def nginx(folder: Path, backend_port: int, *, change: Callable[[str], str] = str, **options: Any) -> Iterator[Proxy]:
    """nginx on free ports in front of 127.0.0.1:`backend_port`; `change` edits the site file before the start."""
    n = options.setdefault("gpus", 4)
    first = free_ports(n + 1)
    site = make_nginx.Site(backend=f"127.0.0.1:{backend_port}", first_port=first + 1, path_port=first, listen="127.0.0.1", **options)
    make_nginx.write(site, folder)
    file = folder / make_nginx.SITE
    file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")
    process = subprocess.Popen(command(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        _until_listening(process, site.path_port)
        yield Proxy(site, folder)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def _until_listening(process: subprocess.Popen[str], port: int) -> None:
    until = time.monotonic() + START_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until, "nginx does not listen"
        time.sleep(0.02)


class _Echo(http.server.BaseHTTPRequestHandler):
    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status = int(self.headers.get("X-Answer") or 200)
        body = json.dumps({"path": self.path, "method": self.command, "headers": self.headers.items()}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = _answer

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def echo(port: int = 0) -> Iterator[int]:
    """A backend that answers what it was asked, with the status that the header X-Answer names; gives its port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), _Echo)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def seen(body: bytes, name: str) -> list[str]:
    """The values of a header as the backend got it."""
    return [value for header, value in json.loads(body)["headers"] if header.lower() == name.lower()]
