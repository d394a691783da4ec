"""Graphs that cannot be ordered are told when they are sent, not when they run."""

from __future__ import annotations

import pytest

from comfy.errors import PromptInvalid
from tests.unit.execution.harness import Prompt, node, validate


def rejected(prompt: Prompt) -> PromptInvalid:
    with pytest.raises(PromptInvalid) as caught:
        validate(prompt)
    return caught.value


def chain(length: int, last: list[object] | int) -> Prompt:
    prompt = {str(i): node("Add", a=[str(i + 1), 0], b=1) for i in range(1, length)}
    prompt["0"] = node("Show", value=["1", 0])
    prompt[str(length)] = node("Add", a=last, b=1)
    return prompt


def test_a_static_cycle_says_why() -> None:
    error = rejected(chain(3, ["1", 0]))
    assert error.error["type"] == "prompt_outputs_failed_validation"
    assert error.error["details"] == "Dependency cycle detected: a: 1 → 2 → 3 → 1"
    (cycle,) = error.node_errors["3"]["errors"]
    assert cycle["type"] == "dependency_cycle"
    assert error.node_errors["3"]["dependent_outputs"] == ["0"]


def test_a_node_that_links_to_itself_is_a_cycle() -> None:
    assert rejected(chain(1, ["1", 0])).node_errors["1"]["errors"][0]["type"] == "dependency_cycle"


def test_a_cycle_through_an_undeclared_input_is_one() -> None:
    prompt = {"1": node("Kwargs", extra=["2", 0]), "2": node("Const", n=1, extra=["2", 0])}
    assert rejected(prompt).node_errors["2"]["errors"][0]["type"] == "dependency_cycle"


def test_every_output_on_a_cycle_fails_and_the_others_stay() -> None:
    prompt = chain(3, ["1", 0])
    prompt |= {"7": node("Show", value=["2", 0]), "8": node("Const", n=1), "9": node("Show", value=["8", 0])}
    valid = validate(prompt)
    assert valid.outputs == ("9",)
    assert valid.node_errors["3"]["dependent_outputs"] == ["0", "7"]


def test_a_diamond_is_no_cycle() -> None:
    prompt = {"1": node("Const", n=1), "2": node("Add", a=["1", 0], b=["1", 0]), "3": node("Add", a=["2", 0], b=["1", 0])}
    assert validate(prompt | {"4": node("Show", value=["3", 0]), "5": node("Show", value=["2", 0])}).outputs == ("4", "5")


def test_an_undeclared_input_that_links_to_an_absent_node_is_told() -> None:
    error = rejected({"1": node("Kwargs", extra=["99", 0])})
    assert error.node_errors["1"]["errors"] == [
        {
            "type": "bad_linked_input",
            "message": "Bad linked input, the node that it links to does not exist",
            "details": "extra: node '99' does not exist",
            "extra_info": {"input_name": "extra", "input_config": None, "received_value": ["99", 0]},
        }
    ]
    assert "node '99' does not exist" in error.error["details"]


def test_so_is_one_behind_an_undeclared_link() -> None:
    error = rejected({"1": node("Kwargs", extra=["2", 0]), "2": node("Const", n=1, more=["99", 0])})
    assert error.node_errors["2"]["dependent_outputs"] == ["1"]


def test_a_chain_of_ten_thousand_nodes_is_no_deeper_than_one() -> None:
    assert validate(chain(10_000, 1)).outputs == ("0",)
    assert rejected(chain(10_000, ["5000", 0])).node_errors["10000"]["errors"][0]["type"] == "dependency_cycle"
