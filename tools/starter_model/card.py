"""Prints the measured part of the model card: `python -m tools.starter_model.card models/checkpoints/starter_shapes_sd1.md TABLE.json …`.

The tables lie between two marks in the card and come from `evaluate.py --json`, of one run or several; nobody types them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def table(found: dict[str, Any]) -> str:
    """One run's rows in Markdown."""
    lines = [
        f"Measured on {found['device']}, torch {found['torch']}.",
        "",
        "| row | right | asked for | | what else |",
        "|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        share = f"{row['right']} of {row['of']}" if row["of"] else "–"
        least = "–" if row["least"] is None else f"{100 * row['least']:.0f} %"
        verdict = "" if row["least"] is None else "ok" if row["passed"] else "**below**"
        lines.append(f"| {row['name']} | {share} | {least} | {verdict} | {row['note']} |")
    return "\n".join(lines)


def updated(card: str, runs: Sequence[dict[str, Any]]) -> str:
    """The card with new tables between its marks. Raises ValueError when it has none."""
    before, mark, rest = card.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError("the card has no place for the tables")
    return f"{before}{BEGIN}\n" + "\n\n".join(table(run) for run in runs) + f"\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("card", type=Path)
    parser.add_argument("tables", type=Path, nargs="+")
    given = parser.parse_args()
    runs = [json.loads(path.read_text()) for path in given.tables]
    given.card.write_text(updated(given.card.read_text(), runs))


if __name__ == "__main__":
    main()
