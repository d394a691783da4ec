"""/internal/* and the console buffer: http-api.md section 9, websocket.md section 6."""

import datetime
import io
import logging
import os
import sys
import threading

import pytest

from comfy.logs import ConsoleHandler
from comfy.web import internal, logbuffer
from comfy.web.logbuffer import LogBuffer, Tee
from tests.unit.folders.helpers import put
from tests.unit.web_files.helpers import make_server, talk
from tests.unit.web_files.test_users import ask

NOON = datetime.datetime(2026, 11, 22, 12, 0, 0, 5)


@pytest.fixture
def fresh_console(monkeypatch):
    """Puts a buffer in front of a console of our own when called: within the test, as pytest changes the streams before it."""

    def install():
        monkeypatch.setattr(logbuffer, "_installed", None)
        monkeypatch.setattr(sys, "stdout", io.StringIO())
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        return logbuffer.install()

    return install


def texts(buffer):
    return [entry["m"] for entry in buffer.entries()]


def test_buffer_keeps_the_last_300_writes():
    buffer = LogBuffer(now=lambda: NOON)
    for index in range(310):
        buffer.add(f"{index}\n")
    buffer.add("")
    assert len(buffer.entries()) == 300
    assert buffer.entries()[0] == {"t": "2026-11-22T12:00:00.000005", "m": "10\n"}


def test_progress_bars_replace_their_unfinished_line():
    buffer = LogBuffer()
    for text in ("start\n", "\r10%", "\r20%", "\r100%\n", "\rnext"):
        buffer.add(text)
    assert texts(buffer) == ["start\n", "\r100%\n", "\rnext"]


def test_both_streams_and_log_lines_pass_the_tee_once(fresh_console):
    console = fresh_console()
    handler = ConsoleHandler("stderr")
    logger = logging.getLogger("test_internal")
    logger.addHandler(handler)
    try:
        print("printed")
        print("error", file=sys.stderr)
        logger.warning("logged")
        sys.stdout.writelines(["a\n", "b\n"])
    finally:
        logger.removeHandler(handler)
    assert "".join(texts(console)) == "printed\nerror\nlogged\na\nb\n"
    assert logbuffer.install() is console
    assert not isinstance(sys.stdout._stream, Tee)


def test_stream_of_a_pack_in_front_of_ours_still_comes_through(fresh_console):
    console = fresh_console()

    class PackStream:
        def __init__(self, stream):
            self.stream = stream

        def write(self, text):
            return self.stream.write("[pack] " + text)

        def flush(self):
            self.stream.flush()

    sys.stdout = PackStream(sys.stdout)
    sys.stdout.write("x\n")
    assert texts(console) == ["[pack] x\n"]


def test_tee_is_its_stream_in_all_else(fresh_console):
    fresh_console()
    assert sys.stdout.isatty() is False
    assert sys.stdout.encoding is None
    with pytest.raises(io.UnsupportedOperation):
        sys.stdout.fileno()


def test_listener_that_prints_or_fails_breaks_nobody(fresh_console):
    console = fresh_console()
    calls = []

    def listener():
        calls.append(1)
        print("from the listener", flush=True)
        raise RuntimeError("broken")

    console.on_flush = listener
    print("x", flush=True)
    assert calls == [1]
    assert "from the listener" in texts(console)


def test_writers_in_many_threads_lose_nothing():
    buffer = LogBuffer(capacity=10_000)
    threads = [threading.Thread(target=lambda: [buffer.add("x\n") for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(buffer.entries()) == len(buffer.take_unsent()) == 2000
    assert buffer.take_unsent() == []


def test_log_routes(tmp_path, fresh_console):
    console = fresh_console()
    server = make_server(tmp_path, internal)
    console.add("one\n")
    console.add("two\n")
    logs, raw = ask(server, ("GET", "/internal/logs"), ("GET", "/internal/logs/raw"))
    assert raw[1]["entries"][:2] == console.entries()[:2]
    assert set(raw[1]["size"]) == {"cols", "rows"}
    assert logs[1].startswith(console.entries()[0]["t"] + " - one\n")


def test_subscribers_get_new_lines_at_a_flush_and_nobody_else_does(tmp_path, fresh_console):
    fresh_console()
    server = make_server(tmp_path, internal)
    server.sockets = {"me": object(), "other": object()}

    async def story(client):
        async def subscribe(sid, enabled):
            assert (await client.patch("/internal/logs/subscribe", json={"clientId": sid, "enabled": enabled})).status == 200

        print("before", flush=True)
        await subscribe("me", True)
        await subscribe("gone", True)
        print("hello")
        assert server.sent == []
        sys.stdout.flush()
        sys.stdout.flush()
        print("again", flush=True)
        await subscribe("me", False)
        print("after", flush=True)

    talk(server, story)
    size = logbuffer.terminal_size()
    assert [(event, "".join(entry["m"] for entry in data["entries"]), data["size"], sid) for event, data, sid in server.sent] == [
        ("logs", "hello\n", size, "me"),
        ("logs", "again\n", None, "me"),
    ]


def test_subscription_ends_with_the_connection(tmp_path, fresh_console):
    fresh_console()
    server = make_server(tmp_path, internal)
    server.sockets = {"me": object()}

    async def story(client):
        await client.patch("/internal/logs/subscribe", json={"clientId": "me", "enabled": True})
        print("one", flush=True)
        server.sockets = {}
        print("two", flush=True)
        server.sockets = {"me": object()}
        print("three", flush=True)

    talk(server, story)
    assert len(server.sent) == 1


@pytest.mark.parametrize(
    "body", [{}, {"clientId": "a"}, {"enabled": True}, {"clientId": 3, "enabled": True}, {"clientId": "a", "enabled": 1}, [], b"{"]
)
def test_unusable_subscriptions_are_typed_400(tmp_path, fresh_console, body):
    fresh_console()
    status, answer = ask(make_server(tmp_path, internal), ("PATCH", "/internal/logs/subscribe", body))
    assert (status, set(answer)) == (400, {"error", "node_errors"})


def test_folder_paths(tmp_path, fresh_console):
    fresh_console()
    server = make_server(tmp_path, internal)
    server.folders.names["pack"] = ((), [])
    status, body = ask(server, ("GET", "/internal/folder_paths"))
    assert (status, body["pack"], body["configs"]) == (200, [], [str(tmp_path / "models" / "configs")])


def test_files_newest_first(tmp_path, fresh_console):
    fresh_console()
    for age, name in enumerate(("new.png", "mid.png", "old.png")):
        path = put(tmp_path / "output" / name)
        os.utime(path, (1000 - age, 1000 - age))
    put(tmp_path / "output" / "sub" / "x.png")
    (tmp_path / "output" / "dangling").symlink_to("nowhere")
    server = make_server(tmp_path, internal)
    answers = ask(server, ("GET", "/internal/files/output"), ("GET", "/internal/files/input"), ("GET", "/internal/files/user"))
    assert answers[:2] == [(200, ["new.png", "mid.png", "old.png"]), (200, [])]
    assert (answers[2][0], type(answers[2][1]["error"])) == (400, str)
