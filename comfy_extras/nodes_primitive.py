"""Values typed into a graph once and used in many places."""

from __future__ import annotations

from typing import Any

from comfy.nodes.v3 import io

#: the front end's integers are 64-bit signed, without the lowest
LIMIT = 2**63 - 1


def _schema(node_id: str, title: str, value: Any, output: Any) -> io.Schema:
    return io.Schema(node_id=node_id, display_name=title, category="utils/primitive", inputs=[value], outputs=[output])


class _Primitive(io.ComfyNode):
    """Gives back what was typed."""

    @classmethod
    def execute(cls, value: Any) -> io.NodeOutput:
        return io.NodeOutput(value)


class String(_Primitive):
    """A line of text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("PrimitiveString", "String", io.String.Input("value"), io.String.Output())


class StringMultiline(_Primitive):
    """Text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        value = io.String.Input("value", multiline=True)
        return _schema("PrimitiveStringMultiline", "String (Multiline)", value, io.String.Output())


class Int(_Primitive):
    """A whole number."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        value = io.Int.Input("value", min=-LIMIT, max=LIMIT, control_after_generate=True)
        return _schema("PrimitiveInt", "Int", value, io.Int.Output())


class Float(_Primitive):
    """A number."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("PrimitiveFloat", "Float", io.Float.Input("value", min=-LIMIT, max=LIMIT), io.Float.Output())


class Boolean(_Primitive):
    """True or false."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("PrimitiveBoolean", "Boolean", io.Boolean.Input("value"), io.Boolean.Output())


NODES: list[type[io.ComfyNode]] = [String, StringMultiline, Int, Float, Boolean]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
