"""When do two nodes give the same result? A key per node, equal when class, constants, change values and sources are.

Contract: execution.md sections 14.3 and 14.4. A key is a digest of the node's own entry and of its sources' keys, so that a
graph of n nodes costs n, and a loop that unrolls itself does not pay for its past in every iteration.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from comfy_execution.graph import DynamicPrompt
from comfy_execution.graph_utils import is_link
from comfy_execution.node_class import NodeClass, NodeClasses

DIGEST_BYTES = 20


class Unmatchable:
    """The key of a node that never stands for another one, nor for itself in another prompt."""


Key = bytes | Unmatchable


class _NeverEqual(Exception):
    """A value that equals nothing was met."""


def _digest(tag: bytes, *parts: bytes) -> bytes:
    state = hashlib.blake2b(tag, digest_size=DIGEST_BYTES)
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.digest()


def value_digest(value: Any) -> bytes:
    """Digest of a constant: numbers, texts and None by value (1, 1.0 and True are one), containers by what they hold.

    Raises _NeverEqual for NaN and for any other object.
    """
    if value is None:
        return _digest(b"none")
    if isinstance(value, str):
        return _digest(b"text", str.encode(value, "utf-8", "surrogatepass"))
    if isinstance(value, int | float):
        return _digest(b"number", _number(value))
    if isinstance(value, Mapping):
        return _container(value.items())
    if isinstance(value, list | tuple):
        return _container(enumerate(value))
    raise _NeverEqual


def _number(value: float) -> bytes:
    if isinstance(value, float):
        if math.isnan(value):
            raise _NeverEqual
        if not value.is_integer():  # infinities are not integers either
            return value.hex().encode()
    return b"%x" % int(value)


def _container(items: Any) -> bytes:
    return _digest(b"items", *sorted(value_digest(key) + value_digest(item) for key, item in items))


class Signatures:
    """The keys of one prompt's nodes, computed on first need and kept for the prompt."""

    def __init__(self, dynprompt: DynamicPrompt, classes: NodeClasses, change_of: Callable[[str], Any]) -> None:
        self._dynprompt = dynprompt
        self._classes = classes
        self._change_of = change_of
        self._keys: dict[str, Key] = {}

    def key(self, node_id: str) -> Key:
        """The key of a node of the prompt."""
        stack = [node_id]
        open_nodes: set[str] = set()
        while stack:
            current = stack[-1]
            if current in self._keys:
                stack.pop()
                continue
            waiting = [] if current in open_nodes else self._unknown_sources(current)
            open_nodes.add(current)
            if waiting:
                stack.extend(waiting)
            else:
                stack.pop()
                self._keys[current] = self._make(current)
        return self._keys[node_id]

    def _links(self, node_id: str) -> list[Sequence[Any]]:
        return [value for value in self._dynprompt.get_node(node_id).get("inputs", {}).values() if is_link(value)]

    def _unknown_sources(self, node_id: str) -> list[str]:
        return [link[0] for link in self._links(node_id) if link[0] not in self._keys and self._dynprompt.has_node(link[0])]

    def _make(self, node_id: str) -> Key:
        node = self._dynprompt.get_node(node_id)
        try:
            node_class: NodeClass = self._classes.of(node)
            parts = [value_digest(node_class.name), value_digest(self._change_of(node_id))]
            if node_class.needs_id_in_key:
                parts.append(value_digest(node_id))
            for name, value in sorted(node.get("inputs", {}).items()):
                parts.append(value_digest(name))
                parts.append(self._link_digest(value) if is_link(value) else value_digest(value))
            return _digest(b"node", *parts)
        except (_NeverEqual, RecursionError):
            return Unmatchable()
        except Exception:
            # the class cannot say what it is: it has no equal, and running it will tell the user why
            return Unmatchable()

    def _link_digest(self, link: Sequence[Any]) -> bytes:
        source = self._keys.get(link[0])  # missing: absent from the prompt, or around a cycle
        if not isinstance(source, bytes):
            raise _NeverEqual
        return _digest(b"link", source, _number(link[1]))
