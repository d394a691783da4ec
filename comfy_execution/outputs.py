"""What the calls of a node returned -> a list per slot, a UI result, an expansion (contract: execution.md section 9)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from comfy.errors import NodeError
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.node_class import NodeClass


class UiNotJson(NodeError):
    """The node's UI result cannot be written as JSON."""


@dataclass
class CallResult:
    """What one call gave: values per slot, and the graph that they may link into."""

    values: Sequence[Any]
    graph: Mapping[str, Any] | None = None


@dataclass
class Returned:
    """What all calls of a node gave, in call order."""

    calls: list[CallResult] = field(default_factory=list)
    uis: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def expands(self) -> bool:
        """Whether a call gave a graph."""
        return any(call.graph is not None for call in self.calls)


def read_returns(returns: Sequence[Any], node_class: NodeClass) -> Returned:
    """Sort what each call returned into values, UI and graphs.

    Raises TypeError for None, and for a graph without a result.
    """
    found = Returned()
    for returned in returns:
        if isinstance(returned, Mapping):
            _read_parts(found, node_class, returned)
        elif hasattr(returned, "block_execution") and hasattr(returned, "expand"):
            _read_parts(found, node_class, _parts_of_node_output(returned))
        else:
            found.calls.append(CallResult(_slots(returned, node_class)))
    return found


def _parts_of_node_output(output: Any) -> dict[str, Any]:
    """A V3 NodeOutput as the equivalent dictionary."""
    parts: dict[str, Any] = {}
    ui = output.ui
    if ui is not None:
        parts["ui"] = ui.as_dict() if hasattr(ui, "as_dict") else ui
    result = output.result if hasattr(output, "result") else getattr(output, "args", None)
    if output.block_execution is not None:
        result = ExecutionBlocker(output.block_execution)
    if result is not None:
        parts["result"] = result
    if output.expand is not None:
        parts["expand"] = output.expand
        parts.setdefault("result", ())  # a V3 node without outputs has no values to give
    return parts


def _read_parts(found: Returned, node_class: NodeClass, parts: Mapping[str, Any]) -> None:
    if parts.get("ui") is not None:
        found.uis.append(parts["ui"])
    if "expand" in parts:
        if parts.get("result") is None:
            raise TypeError("a node that gives 'expand' must give 'result' with it")
        found.calls.append(CallResult(_slots(parts["result"], node_class), parts["expand"]))
    elif "result" in parts:
        found.calls.append(CallResult(_slots(parts["result"], node_class)))


def _slots(result: Any, node_class: NodeClass) -> Sequence[Any]:
    if isinstance(result, ExecutionBlocker):
        return (result,) * len(node_class.return_types)
    len(result)  # None and other things without slots are the node's mistake: TypeError
    values: Sequence[Any] = result
    return values


def merge_values(calls: Sequence[Sequence[Any]], node_class: NodeClass) -> list[list[Any]]:
    """The values of N calls -> a list per slot.

    Slots that OUTPUT_IS_LIST marks are concatenated, the others collected. Raises IndexError when a later call gave fewer slots.
    """
    if not calls:
        return []
    is_list = node_class.output_is_list
    if is_list is None:
        is_list = (False,) * len(calls[0])
    merged: list[list[Any]] = []
    for slot, concatenate in zip(range(len(calls[0])), is_list):
        elements: list[Any] = []
        for values in calls:
            if concatenate and not isinstance(values[slot], ExecutionBlocker):
                elements.extend(values[slot])
            else:
                elements.append(values[slot])
        merged.append(elements)
    return merged


def merge_uis(uis: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """UI dictionaries of N calls -> one; each value is the concatenation over calls, as plain JSON of our own.

    Raises KeyError when a later call lacks a key of the first, TypeError for a value that is no list, UiNotJson.
    """
    if not uis:
        return {}
    merged = {key: [element for ui in uis for element in ui[key]] for key in uis[0]}
    try:
        copy: dict[str, list[Any]] = json.loads(json.dumps(merged))
    except (TypeError, ValueError, RecursionError) as error:
        raise UiNotJson(str(error)) from None
    return copy
