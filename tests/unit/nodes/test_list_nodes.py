"""docs/nodes.md says which nodes are here."""

from __future__ import annotations

from tools import list_nodes

RECORD = {
    "A": {"category": "image"},
    "C": {"category": "latent"},
    "B": {"category": "image"},
}


def test_nodes_are_listed_by_category_and_counted() -> None:
    text = list_nodes.page(RECORD, ["A", "B", "Own"])
    assert "**2 of 3 nodes of the contract are here, 1 are not yet.**" in text
    assert "| image | A, B |  |\n| latent |  | C |\n" in text
    assert text.endswith("Nodes that the contract does not have: Own.\n")


def test_the_page_is_up_to_date() -> None:
    assert list_nodes.PAGE.read_text(encoding="utf-8") == list_nodes.current(), "run: python -m tools.list_nodes"
