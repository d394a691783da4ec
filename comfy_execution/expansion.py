"""A node that gives a graph instead of values (contract: execution.md section 12)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comfy.errors import NodeError
from comfy_execution.graph import DynamicPrompt
from comfy_execution.graph_utils import is_link
from comfy_execution.inputs import OutputsOf
from comfy_execution.node_class import NodeClasses
from comfy_execution.outputs import CallResult


class DuplicateNodeError(NodeError):
    """An expansion brought a node id that the prompt already has."""


# clients and packs know it under this name
DuplicateNodeError.__module__ = "execution"


class ExpansionInvalid(NodeError):
    """The graph that a node expanded into is malformed."""


@dataclass(frozen=True)
class Expansion:
    """What is to be done before the expanding node's values are known.

    nodes    the new ids, in order
    outputs  those of them that run although nothing may link to them
    links    ids of nodes that the values of the expanding node come from
    """

    nodes: list[str]
    outputs: list[str]
    links: list[str]


def add_nodes(node_id: str, calls: Sequence[CallResult], dynprompt: DynamicPrompt, classes: NodeClasses) -> Expansion:
    """Put the graphs of a node's calls into the prompt. Raises DuplicateNodeError, ExpansionInvalid, UnknownNodeClass."""
    found = Expansion([], [], [])
    for call in calls:
        if call.graph is None:
            continue
        if not isinstance(call.graph, Mapping):
            raise ExpansionInvalid(f"It is a {type(call.graph).__name__}.", node_id=node_id)
        for new_id, info in call.graph.items():
            if not isinstance(new_id, str) or not isinstance(info, dict) or not isinstance(info.get("inputs", {}), Mapping):
                raise ExpansionInvalid("Each entry is a string id and an object with class_type and inputs.", node_id=node_id)
            if dynprompt.has_node(new_id):
                raise DuplicateNodeError(node_id=new_id)
            node_class = classes.of(info)
            dynprompt.add_ephemeral_node(new_id, info, node_id, info.get("override_display_id") or node_id)
            found.nodes.append(new_id)
            if node_class.is_output:
                found.outputs.append(new_id)
        found.links.extend(value[0] for value in call.values if is_link(value))
    return found


def resolve(calls: Sequence[CallResult], outputs_of: OutputsOf) -> list[list[Any]]:
    """The values of each call, once the nodes that they link to have run.

    Every element of a linked output is appended, so a list of another length than 1 shifts the slots after it.
    """
    resolved = []
    for call in calls:
        if call.graph is None:
            resolved.append(list(call.values))
            continue
        values: list[Any] = []
        for value in call.values:
            values.extend(_linked(value, outputs_of) if is_link(value) else [value])
        resolved.append(values)
    return resolved


def _linked(link: Sequence[Any], outputs_of: OutputsOf) -> Sequence[Any]:
    outputs = outputs_of(link[0])
    slot = int(link[1])
    if outputs is None or not 0 <= slot < len(outputs):
        return [None]
    elements: Sequence[Any] = outputs[slot]
    return elements
