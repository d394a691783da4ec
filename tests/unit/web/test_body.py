"""Large bodies are read in pieces: the value, and what is refused, are those of json.loads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy.errors import InvalidJson
from comfy.web.body import parse_json, parse_large

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3))


def outcome(parse: Any, body: bytes) -> Any:
    try:
        return parse(body)
    except InvalidJson:
        return InvalidJson


@settings(max_examples=200, deadline=None, derandomize=True)
@given(VALUES, st.sampled_from([None, 1]), st.sampled_from(["utf-8", "utf-16"]))
def test_every_value_is_read_as_by_json(value: Any, indent: int | None, encoding: str) -> None:
    body = json.dumps(value, indent=indent, ensure_ascii=False).encode(encoding, "surrogatepass")
    assert parse_large(body) == parse_json(body) == value


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(alphabet='{}[]:,"\\ \n01aeflnrstu-.', max_size=14), st.sampled_from(["", '{"a": ', '{"a": {"b": 1, ']))
def test_what_is_no_json_is_refused_as_by_json(text: str, before: str) -> None:
    body = (before + text).encode()
    assert outcome(parse_large, body) == outcome(parse_json, body)


@pytest.mark.parametrize("body", [b"", b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b"{} x", b'{"a": 1,}', b"{,}", b"\xef\xbb\xbf{}"])
def test_hard_cases(body: bytes) -> None:
    assert outcome(parse_large, body) == outcome(parse_json, body)


def test_a_name_that_comes_twice_keeps_its_last_value() -> None:
    assert parse_large(b'{"a": {"b": 1, "b": 2}, "a": {"c": NaN}}').keys() == {"a"}
    assert parse_large(b'{"a": {"b": 1, "b": 2}}') == {"a": {"b": 2}}
