"""Packs in exclusive mode: who may be inside together, in which order, and what their assignments reach."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from comfy import replaceable
from comfy.control import JobControl
from comfy.errors import ConfigError
from comfy.nodes.registry import NodeRegistry
from comfy_execution.exclusive import Door, Turns, exclusive_packs

WAIT_S = 30.0


class Inside(threading.Thread):
    """Enters a door, says so, and leaves when told."""

    def __init__(self, door: Door, alone: bool, order: list[str], name: str) -> None:
        super().__init__(daemon=True)
        self.door, self.alone, self.order, self.label = door, alone, order, name
        self.entered, self.go, self.stop = threading.Event(), threading.Event(), threading.Event()
        self.admitted: bool | None = None
        self.start()

    def run(self) -> None:
        self.admitted = self.door.enter(self.alone, self.stop.is_set)
        if self.admitted:
            self.order.append(self.label)
        self.entered.set()
        if self.admitted:
            self.go.wait(WAIT_S)
            self.door.leave(self.alone)

    def finish(self) -> None:
        self.go.set()
        self.join(WAIT_S)
        assert not self.is_alive()


def stand(door: Door, alone: bool, order: list[str], name: str, behind: int) -> Inside:
    """One more who cannot enter yet, certainly behind those who came before."""
    person = Inside(door, alone, order, name)
    while len(door._line) < behind + 1:
        threading.Event().wait(0.001)
    return person


def test_ordinary_jobs_are_inside_together() -> None:
    door, order = Door(), list[str]()
    people = [Inside(door, False, order, name) for name in "abc"]
    for person in people:
        assert person.entered.wait(WAIT_S)
    assert sorted(order) == ["a", "b", "c"]
    for person in people:
        person.finish()


def test_one_who_must_be_alone_waits_for_all_and_holds_later_ones_back_in_order() -> None:
    door, order = Door(), list[str]()
    first = Inside(door, False, order, "shared 1")
    assert first.entered.wait(WAIT_S)
    alone = stand(door, True, order, "alone", 0)
    second = stand(door, False, order, "shared 2", 1)
    assert order == ["shared 1"]  # shared 2 could enter, were it not for who stands before it
    first.finish()
    assert alone.entered.wait(WAIT_S)
    assert order == ["shared 1", "alone"]
    alone.finish()
    assert second.entered.wait(WAIT_S)
    assert order == ["shared 1", "alone", "shared 2"]
    second.finish()


def test_a_stopped_job_leaves_the_line_and_lets_the_next_one_in() -> None:
    door, order = Door(), list[str]()
    first = Inside(door, False, order, "first")
    assert first.entered.wait(WAIT_S)
    stopped = stand(door, True, order, "stopped", 0)
    next_one = stand(door, False, order, "next", 1)
    stopped.stop.set()
    stopped.join(WAIT_S)
    assert stopped.admitted is False
    assert next_one.entered.wait(WAIT_S)
    assert order == ["first", "next"]
    first.finish()
    next_one.finish()
    assert door.enter(True, lambda: False)  # nothing was left behind


class A:
    RELATIVE_PYTHON_MODULE = "custom_nodes.calm"


class B:
    RELATIVE_PYTHON_MODULE = "custom_nodes.wild"


@pytest.fixture
def turns() -> Turns:
    registry = NodeRegistry()
    registry.classes.update(A=A, B=B)
    return Turns(registry, ["wild"])


@replaceable.replaceable("tests_turns.name")
def core() -> str:
    return "core"


def prompt(*classes: str) -> dict[str, Any]:
    return {str(i): {"class_type": name, "inputs": {}} for i, name in enumerate(classes)}


def test_a_prompt_with_a_node_of_the_pack_is_alone_and_others_are_not(turns: Turns) -> None:
    with turns.turn(prompt("A", "B"), JobControl("1")) as turn:
        assert turn.alone
    with turns.turn(prompt("A", "Unknown"), JobControl("2")) as turn:
        assert not turn.alone


def test_assignments_of_exclusive_packs_stay_among_their_jobs_and_are_kept_for_the_next(turns: Turns) -> None:
    with turns.turn(prompt("B"), JobControl("1")):
        replaceable.rebind("tests_turns.name", lambda: "pack")
        assert core() == "pack"
    assert core() == "core"
    with turns.turn(prompt("A"), JobControl("2")):
        assert core() == "core"
    with turns.turn(prompt("B"), JobControl("3")):
        assert core() == "pack"


def test_an_ordinary_jobs_assignment_is_process_wide_as_ever(turns: Turns) -> None:
    with turns.turn(prompt("A"), JobControl("1")):
        replaceable.rebind("tests_turns.name", lambda: "mine")
    try:
        assert core() == "mine"
    finally:
        replaceable.rebind("tests_turns.name", core)


def test_a_job_whose_expansion_brings_such_a_node_is_alone_from_then_on(turns: Turns) -> None:
    with turns.turn(prompt("A"), JobControl("1")) as turn:
        turn.include(["A"])
        assert not turn.alone
        turn.include(["A", "B"])
        assert turn.alone
        assert not turns.door.enter(False, lambda: True)  # nobody else gets in
    assert turns.door.enter(False, lambda: True)


def test_two_jobs_that_become_exclusive_at_once_do_not_wait_for_each_other(turns: Turns) -> None:
    both = threading.Barrier(2)
    ended: list[str] = []

    def run(prompt_id: str) -> None:
        with turns.turn(prompt("A"), JobControl(prompt_id)) as turn:
            both.wait(WAIT_S)
            turn.include(["B"])
            ended.append(prompt_id)

    people = [threading.Thread(target=run, args=(name,), daemon=True) for name in "ab"]
    for person in people:
        person.start()
    for person in people:
        person.join(WAIT_S)
    assert sorted(ended) == ["a", "b"]


def test_names_come_from_the_setting_and_the_file(tmp_path: Path) -> None:
    file = tmp_path / "exclusive_packs.json"
    assert exclusive_packs(["a"], file) == {"a"}
    file.write_text('["b", "a"]')
    assert exclusive_packs(["a"], file) == {"a", "b"}


@pytest.mark.parametrize("text", ["{}", '["a", 1]', "nonsense", "[" * 100_000])
def test_a_broken_file_ends_the_start(tmp_path: Path, text: str) -> None:
    file = tmp_path / "exclusive_packs.json"
    file.write_text(text)
    with pytest.raises(ConfigError):
        exclusive_packs([], file)
