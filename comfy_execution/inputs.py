"""The values that a node is called with (contract: execution.md section 7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from comfy_execution.graph_utils import is_link
from comfy_execution.node_class import HIDDEN_KINDS, NodeClass

#: node id -> its outputs, a list per slot; None when it has not run
OutputsOf = Callable[[str], Sequence[Any] | None]


@dataclass
class NodeInputs:
    """Inputs before list slicing.

    values   name -> list of elements (literals: one element)
    missing  names of links whose source has not run or has no such slot
    hidden   what a V3 class reads from `cls.hidden`, by lower-case attribute name
    """

    values: dict[str, Sequence[Any]] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    hidden: dict[str, Any] = field(default_factory=dict)


def unwrap(value: Any) -> Any:
    """A literal that was sent as `{"__value__": x}` -> x; anything else as it is."""
    return value["__value__"] if isinstance(value, dict) and "__value__" in value else value


def early_hidden(node_id: str) -> dict[str, Any]:
    """The hidden values while nothing runs yet, at validation and change detection."""
    return {**dict.fromkeys(HIDDEN_KINDS), "PROMPT": {}, "UNIQUE_ID": node_id}


def collect_inputs(
    node_class: NodeClass, inputs: Mapping[str, Any], hidden: Mapping[str, Any], outputs_of: OutputsOf | None = None
) -> NodeInputs:
    """Look up every input of a node.

    hidden      hidden kind -> value
    outputs_of  None: nothing has run, every link is missing
    """
    found = NodeInputs()
    for name, value in inputs.items():
        _, group, options = node_class.input(name)
        if is_link(value):
            if options.get("rawLink"):
                found.values[name] = [value]
                continue
            elements = _linked(value, outputs_of)
            if elements is None:
                found.missing.add(name)
                found.values[name] = (None,)
            else:
                found.values[name] = elements
        elif group is not None:
            found.values[name] = [unwrap(value)]
    for name, kind in node_class.hidden.items():
        if node_class.is_v3:
            found.hidden[kind.lower()] = hidden.get(kind)
        else:
            found.values[name] = [hidden.get(kind)]
    return found


def _linked(link: Sequence[Any], outputs_of: OutputsOf | None) -> Sequence[Any] | None:
    outputs = outputs_of(link[0]) if outputs_of is not None else None
    slot = int(link[1])
    if outputs is None or not 0 <= slot < len(outputs):
        return None
    elements: Sequence[Any] = outputs[slot]
    return elements
