"""The test nodes count on their classes; each test starts from nothing."""

from __future__ import annotations

import pytest

from tests.unit.execution import nodes


@pytest.fixture(autouse=True)
def _fresh_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    for cls, name in ((nodes.Const, "made"), (nodes.Hidden, "changed"), (nodes.Steps, "done"), (nodes.Later, "log")):
        monkeypatch.setattr(cls, name, [])
    monkeypatch.setattr(nodes.Later, "gates", {})
    monkeypatch.setattr(nodes.Expand, "runs", 0)
    monkeypatch.setattr(nodes.Changed, "runs", 0)
