"""Nodes on text. Their regular expressions: comfy/nodes/expressions.py."""

from __future__ import annotations

from typing import Any

from comfy.nodes.expressions import EXTRACTS, Expression
from comfy.nodes.v3 import io

CASES = {"UPPERCASE": str.upper, "lowercase": str.lower, "Capitalize": str.capitalize, "Title Case": str.title}
TRIMS = {"Both": str.strip, "Left": str.lstrip, "Right": str.rstrip}


def _text(name: str, multiline: bool = True, **more: Any) -> Any:
    return io.String.Input(name, multiline=multiline, **more)


def _schema(node_id: str, title: str, inputs: list[Any], output: Any) -> io.Schema:
    return io.Schema(node_id=node_id, display_name=title, category="utils/string", inputs=inputs, outputs=[output])


def _flag_inputs(optional: bool = False) -> list[Any]:
    return [
        io.Boolean.Input("case_insensitive", default=True, optional=optional),
        io.Boolean.Input("multiline", default=False, optional=optional),
        io.Boolean.Input("dotall", default=False, optional=optional),
    ]


class StringConcatenate(io.ComfyNode):
    """Two texts with a delimiter between them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [_text("string_a"), _text("string_b"), _text("delimiter", multiline=False, default="")]
        return _schema("StringConcatenate", "Concatenate", inputs, io.String.Output())

    @classmethod
    def execute(cls, string_a: str, string_b: str, delimiter: str) -> io.NodeOutput:
        return io.NodeOutput(delimiter.join((string_a, string_b)))


class StringSubstring(io.ComfyNode):
    """The characters from `start` up to `end`, as Python counts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [_text("string"), io.Int.Input("start"), io.Int.Input("end")]
        return _schema("StringSubstring", "Substring", inputs, io.String.Output())

    @classmethod
    def execute(cls, string: str, start: int, end: int) -> io.NodeOutput:
        return io.NodeOutput(string[start:end])


class StringLength(io.ComfyNode):
    """How many characters."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("StringLength", "Length", [_text("string")], io.Int.Output(display_name="length"))

    @classmethod
    def execute(cls, string: str) -> io.NodeOutput:
        return io.NodeOutput(len(string))


class CaseConverter(io.ComfyNode):
    """Capital and small letters."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [_text("string"), io.Combo.Input("mode", options=list(CASES))]
        return _schema("CaseConverter", "Case Converter", inputs, io.String.Output())

    @classmethod
    def execute(cls, string: str, mode: str) -> io.NodeOutput:
        return io.NodeOutput(CASES[mode](string) if mode in CASES else string)


class StringTrim(io.ComfyNode):
    """Without the white space at the ends."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [_text("string"), io.Combo.Input("mode", options=list(TRIMS))]
        return _schema("StringTrim", "Trim", inputs, io.String.Output())

    @classmethod
    def execute(cls, string: str, mode: str) -> io.NodeOutput:
        return io.NodeOutput(TRIMS[mode](string) if mode in TRIMS else string)


class StringReplace(io.ComfyNode):
    """Every occurrence replaced."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [_text("string"), _text("find"), _text("replace")]
        return _schema("StringReplace", "Replace", inputs, io.String.Output())

    @classmethod
    def execute(cls, string: str, find: str, replace: str) -> io.NodeOutput:
        return io.NodeOutput(string.replace(find, replace))


class StringContains(io.ComfyNode):
    """Whether one text is in another."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [_text("string"), _text("substring"), io.Boolean.Input("case_sensitive", default=True)]
        return _schema("StringContains", "Contains", inputs, io.Boolean.Output(display_name="contains"))

    @classmethod
    def execute(cls, string: str, substring: str, case_sensitive: bool) -> io.NodeOutput:
        if not case_sensitive:
            string, substring = string.lower(), substring.lower()
        return io.NodeOutput(substring in string)


class StringCompare(io.ComfyNode):
    """Whether one text begins with, ends with or equals another."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [
            _text("string_a"),
            _text("string_b"),
            io.Combo.Input("mode", options=["Starts With", "Ends With", "Equal"]),
            io.Boolean.Input("case_sensitive", default=True),
        ]
        return _schema("StringCompare", "Compare", inputs, io.Boolean.Output())

    @classmethod
    def execute(cls, string_a: str, string_b: str, mode: str, case_sensitive: bool) -> io.NodeOutput:
        a, b = (string_a, string_b) if case_sensitive else (string_a.lower(), string_b.lower())
        if mode == "Starts With":
            return io.NodeOutput(a.startswith(b))
        if mode == "Ends With":
            return io.NodeOutput(a.endswith(b))
        return io.NodeOutput(a == b)


class RegexMatch(io.ComfyNode):
    """Whether an expression is found in a text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [_text("string"), _text("regex_pattern"), *_flag_inputs()]
        return _schema("RegexMatch", "Regex Match", inputs, io.Boolean.Output(display_name="matches"))

    @classmethod
    def execute(cls, string: str, regex_pattern: str, case_insensitive: bool, multiline: bool, dotall: bool) -> io.NodeOutput:
        return io.NodeOutput(Expression(regex_pattern, case_insensitive, multiline, dotall).found(string))


class RegexExtract(io.ComfyNode):
    """What an expression finds in a text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [
            _text("string"),
            _text("regex_pattern"),
            io.Combo.Input("mode", options=EXTRACTS),
            *_flag_inputs(),
            io.Int.Input("group_index", default=1, min=0, max=100),
        ]
        return _schema("RegexExtract", "Regex Extract", inputs, io.String.Output())

    @classmethod
    def execute(
        cls, string: str, regex_pattern: str, mode: str, case_insensitive: bool, multiline: bool, dotall: bool, group_index: int
    ) -> io.NodeOutput:
        return io.NodeOutput(Expression(regex_pattern, case_insensitive, multiline, dotall).extract(string, mode, group_index))


class RegexReplace(io.ComfyNode):
    """What an expression finds, replaced; \\1 and \\g<name> stand for groups."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        tooltip = "At most this many replacements; 0 replaces all."
        inputs = [
            _text("string"),
            _text("regex_pattern"),
            _text("replace"),
            *_flag_inputs(optional=True),
            io.Int.Input("count", default=0, min=0, max=100, optional=True, tooltip=tooltip),
        ]
        return _schema("RegexReplace", "Regex Replace", inputs, io.String.Output())

    @classmethod
    def execute(
        cls,
        string: str,
        regex_pattern: str,
        replace: str,
        case_insensitive: bool = True,
        multiline: bool = False,
        dotall: bool = False,
        count: int = 0,
    ) -> io.NodeOutput:
        expression = Expression(regex_pattern, case_insensitive, multiline, dotall)
        return io.NodeOutput(expression.replaced(string, replace, count))


NODES: list[type[io.ComfyNode]] = [
    StringConcatenate,
    StringSubstring,
    StringLength,
    CaseConverter,
    StringTrim,
    StringReplace,
    StringContains,
    StringCompare,
    RegexMatch,
    RegexExtract,
    RegexReplace,
]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
