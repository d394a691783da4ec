"""For all tests: seconds per suite at the end of a run, and in CI no test is skipped for want of a program.

A suite is a folder below tests/: tests/unit/<area>, tests/integration, tests/browser, tests/gpu.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath

import pytest

IN_CI = os.environ.get("CI", "").lower() in ("1", "true")
#: a skip for want of a GPU is no failure anywhere: CI has none
NEEDS_GPU = re.compile(r"\b(GPUs?|CUDA)\b", re.IGNORECASE)

_seconds: dict[str, float] = defaultdict(float)
_tests: dict[str, int] = defaultdict(int)


def suite_of(nodeid: str) -> str:
    """`tests/unit/web/test_x.py::test_y` -> `tests/unit/web`; a file right in tests/unit belongs to `tests/unit`."""
    folder = PurePosixPath(nodeid.split("::")[0]).parent
    return "/".join(folder.parts[:3]) or "tests"


def must_not_skip(reason: str) -> bool:
    """Whether a skip with these words is a failure in CI."""
    return not NEEDS_GPU.search(reason)


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    text = report.longrepr
    return str(text[2]) if isinstance(text, tuple) else str(text)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()
    if IN_CI and report.skipped and not hasattr(report, "wasxfail") and item.get_closest_marker("gpu") is None:
        reason = _reason(report)
        if must_not_skip(reason):
            report.outcome = "failed"
            report.longrepr = f"skipped, which is a failure in CI: {reason}"


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()
    if IN_CI and report.skipped and must_not_skip(_reason(report)):
        report.outcome = "failed"
        report.longrepr = f"skipped, which is a failure in CI: {_reason(report)}"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    suite = suite_of(report.nodeid)
    _seconds[suite] += report.duration
    _tests[suite] += report.when == "call"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _seconds:
        return
    terminalreporter.section("seconds per suite")
    for suite, seconds in sorted(_seconds.items()):
        terminalreporter.write_line(f"{seconds:8.1f} s  {_tests[suite]:5d} tests  {suite}")
    skipped = len(terminalreporter.stats.get("skipped", []))
    terminalreporter.write_line(f"{sum(_seconds.values()):8.1f} s  {sum(_tests.values()):5d} tests  in all; {skipped} skipped")
