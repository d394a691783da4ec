"""docs/fidelity.md speaks of what is there."""

from __future__ import annotations

import re
from pathlib import Path

from comfy.nodes.builtin import register_builtin
from comfy.nodes.registry import NodeRegistry

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")


def test_every_test_in_the_table_exists_and_kept_its_tolerance():
    rows = re.findall(r"\| `(test_\w+)::(test_\w+)` \| (\d+) \| \S+ \| ([\d.]+) \|", TEXT)
    assert len(rows) > 10
    for module, function, _, share in rows:
        assert f"def {function}(" in (Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8")
        assert float(share) <= 1.0


def test_nodes_that_the_page_says_are_missing_are_not_registered():
    registry = NodeRegistry()
    register_builtin(registry)
    missing = TEXT.split("## Not there")[1].split("##")[0]
    named = [name for name in re.findall(r"`(\w+)`", missing) if name[0].isupper()]
    assert named
    assert not set(named) & set(registry.classes)
