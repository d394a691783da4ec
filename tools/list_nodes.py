"""Write docs/nodes.md: which nodes of the contract this server has. `python -m tools.list_nodes [--check]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from comfy.nodes.builtin import register_builtin
from comfy.nodes.registry import NodeRegistry

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "tests" / "data" / "object_info.json"
PAGE = ROOT / "docs" / "nodes.md"
HEAD = """# Nodes

Written by `python -m tools.list_nodes` from the classes that the server registers; a test compares. A node is here when it works.
Whose numbers are compared with the reference and whose are from papers: [fidelity](fidelity.md).

**{have} of {all} nodes of the contract are here, {missing} are not yet.**
"""


def page(record: Mapping[str, Mapping[str, Any]], have: Iterable[str]) -> str:
    """The text of the page. record: node name -> its recorded description; have: the names that are registered."""
    here = set(have)
    missing = [name for name in record if name not in here]
    lines = [HEAD.format(have=len(record) - len(missing), all=len(record), missing=len(missing))]
    lines += ["## By category", "", "| category | here | not yet |", "|---|---|---|"]
    for category in sorted({info["category"] for info in record.values()}):
        names = sorted(name for name, info in record.items() if info["category"] == category)
        lines.append(f"| {category} | {_listed(names, here.__contains__)} | {_listed(names, lambda name: name not in here)} |")
    others = sorted(here - set(record))
    if others:
        lines += ["", f"Nodes that the contract does not have: {', '.join(others)}."]
    return "\n".join(lines) + "\n"


def _listed(names: list[str], wanted: Any) -> str:
    return ", ".join(name for name in names if wanted(name))


def current() -> str:
    """The page as it has to be now."""
    registry = NodeRegistry()
    register_builtin(registry)
    return page(json.loads(RECORD.read_text(encoding="utf-8")), registry.classes)


def main() -> int:
    """Write the page; with --check only compare: 1 when it is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only")
    wanted = current()
    if parser.parse_args().check:
        return 0 if PAGE.exists() and PAGE.read_text(encoding="utf-8") == wanted else 1
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
