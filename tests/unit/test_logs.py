"""Log lines reach console and file as operators grep them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from comfy import logs
from comfy.config import Config
from comfy.errors import ConfigError

log = logging.getLogger("a.module")


def untimed(path: Path) -> list[str]:
    """The file's lines without their times; a line of a traceback has none."""
    return [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", "", line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    level = logging.getLogger().level
    yield
    logs.close()
    logging.getLogger().setLevel(level)


def test_the_file_has_the_name_that_operators_know_and_whole_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = logs.setup(Config(), tmp_path / "logs")
    log.info("🔧 [GPU %d] Worker started on %s", 0, "cuda:0")
    log.warning("[GPU 2] dropped a")
    log.debug("not at this level")
    assert path.parent == tmp_path / "logs"
    assert re.fullmatch(r"comfyui_\d{8}_\d{6}\.log", path.name)
    lines = ["🔧 [GPU 0] Worker started on cuda:0", "WARNING [GPU 2] dropped a"]
    assert untimed(path) == lines
    captured = capsys.readouterr()
    assert captured.err.splitlines() == lines
    assert captured.out == ""


def test_with_log_stdout_only_errors_go_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup(Config(log_stdout=True, log_level="DEBUG"), tmp_path)
    log.debug("one")
    log.error("two")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("one\n", "ERROR two\n")


def test_a_traceback_follows_its_line(tmp_path: Path) -> None:
    path = logs.setup(Config(), tmp_path)
    try:
        raise ValueError("odd")
    except ValueError:
        log.exception("the node failed")
    lines = untimed(path)
    assert lines[0] == "ERROR the node failed"
    assert lines[-1] == "ValueError: odd"


def test_what_no_encoding_can_say_is_escaped_and_not_lost(tmp_path: Path) -> None:
    path = logs.setup(Config(), tmp_path)
    log.info("a lone surrogate \udc80 of a file name")
    assert untimed(path) == ["a lone surrogate \\udc80 of a file name"]


def test_two_starts_in_one_second_write_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs.time, "strftime", lambda form: "comfyui_20251105_184302")
    names = [logs.setup(Config(), tmp_path).name for _ in range(3)]
    assert names == ["comfyui_20251105_184302.log", "comfyui_20251105_184302_2.log", "comfyui_20251105_184302_3.log"]


def test_a_second_set_up_replaces_the_first(tmp_path: Path) -> None:
    before = len(logging.getLogger().handlers)
    first = logs.setup(Config(), tmp_path)
    second = logs.setup(Config(), tmp_path)
    log.info("once")
    assert first.read_text() == ""
    assert untimed(second) == ["once"]
    logs.close()
    logs.close()
    assert len(logging.getLogger().handlers) == before


def test_a_full_file_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FILE_BYTES", 100)
    path = logs.setup(Config(), tmp_path)
    for number in range(20):
        log.info("line %02d of the many that come", number)
    assert path.read_text().endswith("line 19 of the many that come\n")
    assert path.with_name(path.name + ".1").exists()
    assert len(list(tmp_path.iterdir())) == 1 + logs.FILES_KEPT


def test_a_folder_that_cannot_be_made_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as caught:
        logs.setup(Config(), tmp_path / "file" / "logs")
    assert caught.value.facts["folder"] == str(tmp_path / "file" / "logs")


def test_with_the_json_format_each_line_is_an_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = logs.setup(Config(log_format="json"), tmp_path)
    log.info("✅ [GPU %d] done", 1, extra={"action": "job_finished"})
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("the node\nfailed")
    first, second = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    assert datetime.fromisoformat(first.pop("time")).utcoffset() == timedelta(0)
    assert first == {"level": "INFO", "logger": "a.module", "thread": "MainThread", "message": "✅ [GPU 1] done", "action": "job_finished"}
    assert (second["level"], second["message"]) == ("ERROR", "the node\nfailed")
    assert second["exception"].endswith("ValueError: two\nlines")
    assert capsys.readouterr().err == path.read_text(encoding="utf-8")
