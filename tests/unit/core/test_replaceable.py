from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from comfy import replaceable


@replaceable.replaceable("tests_edge.double")
def double(x: int) -> int:
    return 2 * x


@pytest.fixture
def edge() -> Iterator[Any]:
    module = ModuleType("tests_edge")
    module.double = double  # type: ignore[attr-defined]
    module.other = 1  # type: ignore[attr-defined]
    sys.modules["tests_edge"] = module
    replaceable.write_through("tests_edge")
    yield module
    module.double = double  # type: ignore[attr-defined]
    del sys.modules["tests_edge"]


def test_assigning_the_edge_name_rebinds_what_the_core_calls(edge: Any) -> None:
    original = edge.double
    edge.double = lambda x: original(x) + 1
    assert double(3) == 7
    assert edge.double(3) == 7
    edge.double = original
    assert double(3) == 6


def test_other_names_of_the_module_stay_ordinary(edge: Any) -> None:
    edge.other = 5
    assert edge.other == 5


def test_nested_replacements_restored_in_order_leave_the_original(edge: Any) -> None:
    first = edge.double
    edge.double = lambda x: 0
    second = edge.double
    edge.double = lambda x: -1
    edge.double = second
    assert double(3) == 0
    edge.double = first
    assert double(3) == 6
    assert replaceable.lookup("tests_edge.double") is first


def test_in_an_exclusive_job_an_assignment_stays_in_that_job(edge: Any) -> None:
    elsewhere: list[int] = []
    with replaceable.exclusive():
        edge.double = lambda x: 100
        assert double(3) == 100
        thread = threading.Thread(target=lambda: elsewhere.append(double(3)))
        thread.start()
        thread.join()
    assert elsewhere == [6]
    assert double(3) == 6
