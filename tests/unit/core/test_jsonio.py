from __future__ import annotations

import json
import math
from typing import Any

import pytest

from comfy import jsonio


def many(value: Any) -> dict[str, Any]:
    return {f"n{i}": value for i in range(jsonio.MANY + 1)}


@pytest.mark.parametrize(
    "value",
    [
        many([1, "é", None]),
        [0.5, "id", many({"a": [1, 2]}), {}, ["1"]],
        {"prompt": [1, many({}), {"x": many(True)}]},
        many({}),
    ],
    ids=["object", "job", "record", "empty members"],
)
def test_large_values_are_encoded_as_small_ones_are(value: Any) -> None:
    assert jsonio.dumps(value) == json.dumps(value)
    assert jsonio.dump_bytes(value).isascii()


def test_odd_keys_and_values_inside_large_ones() -> None:
    value = {**many(0), "nan": math.nan, 1: (1, {2}), None: math.inf, False: object}
    read = json.loads(jsonio.dumps(value))
    assert (read["nan"], read["1"], read["null"], read["n0"]) == (None, [1, [2]], None, 0)
    assert read["false"] == str(object)
