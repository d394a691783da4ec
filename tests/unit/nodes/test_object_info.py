"""Every node that we register looks to clients as the contract's record says (http-api.md section 5)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from comfy.nodes.builtin import register_builtin
from comfy.nodes.registry import NodeRegistry

RECORDED: dict[str, Any] = json.loads((Path(__file__).parents[2] / "data" / "object_info.json").read_text())
#: prose, which the record leaves out and we write ourselves
PROSE = ("description", "output_tooltips")


@cache
def registered() -> NodeRegistry:
    registry = NodeRegistry()
    register_builtin(registry)
    return registry


@cache
def described() -> dict[str, Any]:
    return {name: json.loads(json.dumps(registered().describe(name))) for name in registered().classes}


def without_prose(info: dict[str, Any]) -> dict[str, Any]:
    """The description without texts for humans, and with the names of files on this machine left out."""
    inputs = {group: {name: _input(spec) for name, spec in entries.items()} for group, entries in info["input"].items()}
    return {**{key: value for key, value in info.items() if key not in PROSE}, "input": inputs}


def _input(spec: Any) -> Any:
    if not isinstance(spec, list) or len(spec) < 2 or not isinstance(spec[1], dict):
        return spec
    return [spec[0], {key: value for key, value in spec[1].items() if key != "tooltip"}, *spec[2:]]


def forget_files(ours: dict[str, Any], recorded: dict[str, Any]) -> None:
    """Combos that list files are empty in the record: there ours only has to be a list of text."""
    for group, entries in recorded["input"].items():
        for name, spec in entries.items():
            mine = ours["input"].get(group, {}).get(name)
            if not mine or not spec:
                continue
            if spec[0] == [] and isinstance(mine[0], list) and all(isinstance(choice, str) for choice in mine[0]):
                mine[0] = []
            elif len(spec) > 1 and isinstance(spec[1], dict) and spec[1].get("options") == [] and isinstance(mine[1].get("options"), list):
                mine[1]["options"] = []


@pytest.mark.parametrize("name", sorted(described()))
def test_a_node_is_described_as_recorded(name: str) -> None:
    assert name in RECORDED, f"{name} is no node of the contract"
    ours = without_prose(described()[name])
    forget_files(ours, RECORDED[name])
    assert ours == RECORDED[name]


def test_inputs_come_in_the_recorded_order() -> None:
    for name, info in described().items():
        for group, entries in RECORDED[name]["input"].items():
            assert list(info["input"][group]) == list(entries), name
            assert info["input_order"][group] == list(entries), name


def test_methods_that_nodes_name_exist() -> None:
    missing = [name for name, cls in registered().classes.items() if not callable(getattr(cls, cls.FUNCTION, None))]
    assert missing == []
