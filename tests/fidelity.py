"""`python -m tests.fidelity`: run the comparisons with the record and print how near each group comes, as docs/fidelity.md shows it."""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import Any

import pytest
import torch

from tests import goldens

#: left out: it compares with numbers that it has changed
CHANGED = "--ignore=tests/unit/sampling/test_goldens_are_compared.py"


class Worst:
    """Per test function: how many tensors were compared, the greatest deviation, and its share of the tolerance."""

    def __init__(self) -> None:
        self.rows: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
        self.test = ""

    def install(self) -> None:
        """Stand in front of `goldens.assert_close` before the test modules import it."""
        compare = goldens.assert_close

        def measured(actual: torch.Tensor, expected: torch.Tensor, tolerance: float, **options: Any) -> None:
            compare(actual, expected, tolerance, **options)
            if expected.numel() == 0:
                return
            off = (actual.double() - expected.double()).abs()
            if options.get("relative"):
                off = off / expected.double().abs().clamp(min=1e-30)
            greatest = float(off[off.isfinite()].max()) if bool(off.isfinite().any()) else 0.0
            row = self.rows[self.test]
            row[0] += 1
            row[1] = max(row[1], greatest)
            row[2] = max(row[2], greatest / tolerance if tolerance else 0.0)

        goldens.assert_close = measured

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        name = item.nodeid.split("::")
        self.test = f"{name[0].rsplit('/', 1)[-1].removesuffix('.py')}::{name[1].split('[')[0]}"


def main(arguments: list[str]) -> int:
    """Run the tests in `arguments`, or all that compare sampling, and print the table."""
    worst = Worst()
    worst.install()
    status = pytest.main(["-q", "--no-header", *(arguments or ["tests/unit/sampling", CHANGED])], plugins=[worst])
    print("| test | tensors | greatest deviation | share of the tolerance |\n|---|---|---|---|")
    for test, (count, off, share) in sorted(worst.rows.items()):
        print(f"| `{test}` | {count:.0f} | {off:.1e} | {share:.2f} |")
    return int(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
