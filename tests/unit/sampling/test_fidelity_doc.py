"""docs/fidelity.md speaks of what is there."""

from __future__ import annotations

import re
from pathlib import Path

from comfy.nodes.builtin import register_builtin
from comfy.nodes.registry import NodeRegistry
from comfy.sampling.sampler import SAMPLER_NAMES
from tests.golden_claims import UNCOMPARED
from tests.unit.sampling.kinds import needs_torchsde

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")


def test_every_test_in_the_table_exists_and_kept_its_tolerance():
    rows = re.findall(r"\| `(test_\w+)::(test_\w+)` \| (\d+) \| \S+ \| ([\d.]+) \|", TEXT)
    assert len(rows) > 10
    for module, function, _, share in rows:
        assert f"def {function}(" in (Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8")
        assert float(share) <= 1.0


def test_what_no_test_compares_is_named():
    section = TEXT.split("## Every number of the record")[1].split("##")[0]
    for file, pattern in UNCOMPARED:
        rows = [row for row in section.splitlines() if f"`{file}`" in row]
        assert len(rows) == sum(file == other for other, _ in UNCOMPARED)
        start = re.match(r"[\w/]*", pattern)[0]
        assert any(start in row for row in rows)


def test_samplers_that_need_a_package_are_counted():
    assert f"{len(SAMPLER_NAMES)} samplers" in TEXT
    assert sum(map(needs_torchsde, SAMPLER_NAMES)) == 8


def test_nodes_that_the_page_says_are_missing_are_not_registered():
    registry = NodeRegistry()
    register_builtin(registry)
    missing = TEXT.split("## Not there")[1].split("##")[0]
    named = [name for name in re.findall(r"`(\w+)`", missing) if name[0].isupper()]
    assert named
    assert not set(named) & set(registry.classes)
