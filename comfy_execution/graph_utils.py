"""What node code uses to build graphs (contract: execution.md sections 10 and 12).

The default prefix of a `GraphBuilder` is state of the running node call. It lives in a context variable, so that lanes,
and the asynchronous nodes of one lane, never take each other's ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


class ExecutionBlocker:
    """A value that stops everything that depends on it, without failing the prompt.

    message  None: silently; text: the first dependent node reports it to the client
    """

    def __init__(self, message: str | None = None) -> None:
        self.message = message

    def __repr__(self) -> str:
        return f"ExecutionBlocker({self.message!r})"


def is_link(obj: object) -> bool:
    """Whether an input value names another node's output: a list of a string id and a number."""
    return (
        isinstance(obj, list)
        and len(obj) == 2
        and isinstance(obj[0], str)
        and isinstance(obj[1], int | float)
        and not isinstance(obj[1], bool)
    )


@dataclass
class _Prefix:
    root: str = ""
    call_index: int = 0
    graph_index: int = 0


_prefix: ContextVar[_Prefix | None] = ContextVar("comfy_graph_prefix", default=None)


class Node:
    """One node of a graph under construction."""

    def __init__(self, id: str, class_type: str, inputs: dict[str, Any]) -> None:
        self.id = id
        self.class_type = class_type
        self.inputs = inputs
        self.override_display_id: str | None = None

    def out(self, index: int) -> list[Any]:
        """A link to the output slot `index`."""
        return [self.id, index]

    def set_input(self, key: str, value: Any) -> None:
        """Give an input its value or link; None removes it."""
        if value is None:
            self.inputs.pop(key, None)
        else:
            self.inputs[key] = value

    def get_input(self, key: str) -> Any:
        """The value or link of an input, or None."""
        return self.inputs.get(key)

    def set_override_display_id(self, override_display_id: str) -> None:
        """Show this node's progress and results at another node than the expanding one."""
        self.override_display_id = override_display_id

    def serialize(self) -> dict[str, Any]:
        """The node as prompt JSON."""
        serialized: dict[str, Any] = {"class_type": self.class_type, "inputs": self.inputs}
        if self.override_display_id is not None:
            serialized["override_display_id"] = self.override_display_id
        return serialized


class GraphBuilder:
    """Builds the graph that a node gives back under `expand`.

    Without a prefix, ids begin with `<expanding node>.<call index>.<graph index>.`: the same in every run, as caching needs.
    """

    def __init__(self, prefix: str | None = None) -> None:
        self.prefix = self.alloc_prefix() if prefix is None else prefix
        self.nodes: dict[str, Node] = {}
        self._id_gen = 1

    @classmethod
    def set_default_prefix(cls, prefix_root: str, call_index: int, graph_index: int = 0) -> None:
        """The executor's word to the calling context: which call the next builders belong to."""
        _prefix.set(_Prefix(prefix_root, call_index, graph_index))

    @classmethod
    def alloc_prefix(cls, root: str | None = None, call_index: int | None = None, graph_index: int | None = None) -> str:
        """A prefix that no other builder of this call has; arguments replace single parts of it."""
        state = _prefix.get()
        if state is None:
            state = _Prefix()
            _prefix.set(state)
        if graph_index is None:
            graph_index = state.graph_index
            state.graph_index += 1
        return f"{state.root if root is None else root}.{state.call_index if call_index is None else call_index}.{graph_index}."

    def node(self, class_type: str, id: str | None = None, **kwargs: Any) -> Node:
        """A new node with these inputs, or the one that already has this id."""
        if id is None:
            while self.prefix + str(self._id_gen) in self.nodes:
                self._id_gen += 1
            id = str(self._id_gen)
            self._id_gen += 1
        full = self.prefix + id
        if full not in self.nodes:
            self.nodes[full] = Node(full, class_type, kwargs)
        return self.nodes[full]

    def lookup_node(self, id: str) -> Node | None:
        """The node with this id (without prefix), or None."""
        return self.nodes.get(self.prefix + id)

    def remove_node(self, id: str) -> None:
        """Take out the node with this id (without prefix); KeyError when there is none."""
        del self.nodes[self.prefix + id]

    def finalize(self) -> dict[str, dict[str, Any]]:
        """The graph as prompt JSON, for `expand`."""
        return {node_id: node.serialize() for node_id, node in self.nodes.items()}

    def replace_node_output(self, node_id: str, index: int, new_value: Any) -> None:
        """Give the consumers of the output (node_id without prefix) `new_value` instead; None deletes their input."""
        target = self.prefix + node_id
        for node in self.nodes.values():
            for key, value in list(node.inputs.items()):
                if is_link(value) and value[0] == target and value[1] == index:
                    node.set_input(key, new_value)


def add_graph_prefix(graph: Mapping[str, Any], outputs: Sequence[Any], prefix: str) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """Copy of a graph with `prefix` before every id of its own, and its outputs with the links to follow."""

    def moved(value: Any) -> Any:
        return [prefix + value[0], value[1]] if is_link(value) and value[0] in graph else value

    renamed = {
        prefix + node_id: {**info, "inputs": {name: moved(value) for name, value in info.get("inputs", {}).items()}}
        for node_id, info in graph.items()
    }
    return renamed, tuple(moved(value) for value in outputs)
