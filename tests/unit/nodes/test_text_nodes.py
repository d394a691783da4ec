"""Text, primitives, previews of any value."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from comfy.errors import InputUnusable, PackageMissing
from comfy.nodes import expressions
from comfy_extras import nodes_primitive, nodes_string
from comfy_extras.nodes_preview_any import PreviewAny, as_text

NODES = nodes_string.NODE_CLASS_MAPPINGS
FLAGS = {"case_insensitive": True, "multiline": False, "dotall": False}
EXTRACT = {**FLAGS, "string": "a1 B22 a", "regex_pattern": r"([ab])(\d+)?", "group_index": 2}


@pytest.mark.parametrize(
    ("name", "inputs", "expected"),
    [
        ("StringConcatenate", {"string_a": "a", "string_b": "b", "delimiter": ", "}, "a, b"),
        ("StringSubstring", {"string": "abcdef", "start": 1, "end": -1}, "bcde"),
        ("StringLength", {"string": "żółw"}, 4),
        ("CaseConverter", {"string": "a Bc d", "mode": "UPPERCASE"}, "A BC D"),
        ("CaseConverter", {"string": "A Bc D", "mode": "lowercase"}, "a bc d"),
        ("CaseConverter", {"string": "a Bc d", "mode": "Capitalize"}, "A bc d"),
        ("CaseConverter", {"string": "a bc d", "mode": "Title Case"}, "A Bc D"),
        ("StringTrim", {"string": "  a ", "mode": "Both"}, "a"),
        ("StringTrim", {"string": "  a ", "mode": "Left"}, "a "),
        ("StringTrim", {"string": "  a ", "mode": "Right"}, "  a"),
        ("StringReplace", {"string": "aXbX", "find": "X", "replace": "-"}, "a-b-"),
        ("StringContains", {"string": "aBc", "substring": "b", "case_sensitive": True}, False),
        ("StringContains", {"string": "aBc", "substring": "b", "case_sensitive": False}, True),
        ("StringCompare", {"string_a": "abc", "string_b": "A", "mode": "Starts With", "case_sensitive": False}, True),
        ("StringCompare", {"string_a": "abc", "string_b": "C", "mode": "Ends With", "case_sensitive": True}, False),
        ("StringCompare", {"string_a": "abc", "string_b": "abc", "mode": "Equal", "case_sensitive": True}, True),
        ("RegexMatch", {**FLAGS, "string": "x\nY", "regex_pattern": "^y"}, False),
        ("RegexMatch", {**FLAGS, "multiline": True, "string": "x\nY", "regex_pattern": "^y"}, True),
        ("RegexMatch", {**FLAGS, "dotall": True, "string": "x\nY", "regex_pattern": "x.y"}, True),
        ("RegexMatch", {**FLAGS, "case_insensitive": False, "string": "Y", "regex_pattern": "y"}, False),
        ("RegexExtract", {**EXTRACT, "mode": "First Match"}, "a1"),
        ("RegexExtract", {**EXTRACT, "mode": "All Matches"}, "a1\nB22\na"),
        ("RegexExtract", {**EXTRACT, "mode": "First Group"}, "1"),
        ("RegexExtract", {**EXTRACT, "mode": "All Groups"}, "1\n22\n"),
        ("RegexExtract", {**EXTRACT, "mode": "First Group", "group_index": 9}, ""),
        ("RegexExtract", {**EXTRACT, "mode": "First Match", "regex_pattern": "z"}, ""),
        ("RegexReplace", {"string": "a1 A2", "regex_pattern": r"a(\d)", "replace": r"<\1>"}, "<1> <2>"),
        ("RegexReplace", {"string": "aaa", "regex_pattern": "a", "replace": "b", "count": 2}, "bba"),
    ],
)
def test_a_text_node_gives(name: str, inputs: dict[str, Any], expected: Any) -> None:
    assert NODES[name].EXECUTE_NORMALIZED(**inputs).args == (expected,)


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("RegexMatch", {**FLAGS, "string": "a", "regex_pattern": "("}),
        ("RegexExtract", {**EXTRACT, "regex_pattern": "[", "mode": "First Match"}),
        ("RegexExtract", {**EXTRACT, "mode": "no such mode"}),
        ("RegexReplace", {"string": "a", "regex_pattern": "a", "replace": r"\9"}),
    ],
)
def test_what_is_no_expression_is_refused(name: str, inputs: dict[str, Any]) -> None:
    with pytest.raises(InputUnusable):
        NODES[name].EXECUTE_NORMALIZED(**inputs)


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("RegexMatch", FLAGS),
        ("RegexExtract", {**FLAGS, "mode": "First Match", "group_index": 1}),
        ("RegexExtract", {**FLAGS, "mode": "All Groups", "group_index": 1}),
        ("RegexReplace", {**FLAGS, "replace": "b"}),
    ],
)
def test_an_expression_that_never_ends_is_refused(name: str, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expressions, "LIMIT_S", 0.05)
    endless = {"string": "a" * 90 + "b", "regex_pattern": "(a|aa)+$"}  # more than 1e18 ways to cut the text, all in vain
    with pytest.raises(InputUnusable, match="too long"):
        NODES[name].EXECUTE_NORMALIZED(**inputs, **endless)


@pytest.mark.parametrize("pattern", ["(" * 20000 + ")" * 20000, "a{99999999999999999999}", "(?P<a>", "[a-", "*", "(?<=a*b", "\\9"])
def test_any_expression_that_cannot_be_read_is_refused(pattern: str) -> None:
    with pytest.raises(InputUnusable):
        NODES["RegexMatch"].EXECUTE_NORMALIZED(**FLAGS, string="a", regex_pattern=pattern)


@pytest.mark.parametrize("pattern", ["", r"\b", "x*", "(x)|a", "a??", "(?:)", r"(?i)A|\d+", "[^ ]+ ?"])
@pytest.mark.parametrize("text", ["", "ab xx1", "Żółć a2\n"])
def test_expressions_mean_what_pythons_own_mean(pattern: str, text: str) -> None:
    ours, own = expressions.Expression(pattern, True, False, False), re.compile(pattern, re.IGNORECASE)
    assert ours.replaced(text, "-") == own.sub("-", text)
    assert ours.extract(text, "All Matches", 0) == "\n".join(match.group(0) for match in own.finditer(text))
    assert ours.found(text) is (own.search(text) is not None)


def test_the_package_is_named_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "regex", None)
    with pytest.raises(PackageMissing, match="regex"):
        NODES["RegexMatch"].EXECUTE_NORMALIZED(**FLAGS, string="a", regex_pattern="a")


@pytest.mark.parametrize("name", sorted(nodes_primitive.NODE_CLASS_MAPPINGS))
def test_a_primitive_gives_what_was_typed(name: str) -> None:
    value = object()
    assert nodes_primitive.NODE_CLASS_MAPPINGS[name].EXECUTE_NORMALIZED(value=value).args == (value,)


class Silent:
    """A value that cannot be written."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text", "text"),
        (True, "True"),
        (3, "3"),
        (0.5, "0.5"),
        (None, "None"),
        ({"a": [1]}, '{\n    "a": [\n        1\n    ]\n}'),
        ({1}, "{1}"),
        (Silent(), "Silent: it cannot be written as text."),
    ],
)
def test_any_value_is_shown_as_text(value: Any, text: str) -> None:
    assert as_text(value) == text
    assert PreviewAny().main(value) == {"ui": {"text": (text,)}}
