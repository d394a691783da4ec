"""The graph of a running prompt, which grows while it runs (contract: execution.md sections 6, 7 and 12)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy.errors import NodeError
from comfy_execution.graph_utils import ExecutionBlocker, is_link
from comfy_execution.node_class import InputInfo, input_info

__all__ = [
    "DependencyCycleError",
    "DynamicPrompt",
    "ExecutionBlocker",
    "NodeInputError",
    "NodeNotFoundError",
    "get_input_info",
    "is_link",
]


class DependencyCycleError(NodeError):
    """Dependency cycle detected"""


class NodeInputError(NodeError):
    """A node asks for an input that cannot be evaluated."""


class NodeNotFoundError(NodeError):
    """The prompt has no such node."""


def get_input_info(class_def: Any, input_name: str, valid_inputs: Mapping[str, Any] | None = None) -> InputInfo:
    """(type, "required" or "optional" or "hidden", options) of an input; (None, None, {}) when the class does not declare it.

    valid_inputs  what the class's INPUT_TYPES() gave, when the caller has it already
    """
    return input_info(class_def.INPUT_TYPES() if valid_inputs is None else valid_inputs, input_name)


class DynamicPrompt:
    """The submitted prompt and the ephemeral nodes that expansions added to it.

    Lookups of parents and displays take no recursion and, for the real and display ids, no walk: a loop nests its ids as
    deep as it has iterations.
    """

    def __init__(self, original_prompt: dict[str, Any]) -> None:
        self.original_prompt = original_prompt
        self.ephemeral_prompt: dict[str, Any] = {}
        self._parents: dict[str, str] = {}
        self._real: dict[str, str] = {}
        self._display: dict[str, str] = {}

    def get_node(self, node_id: str) -> dict[str, Any]:
        """The node as prompt JSON. Raises NodeNotFoundError."""
        node = self.ephemeral_prompt.get(node_id)
        if node is None:
            node = self.original_prompt.get(node_id)
        if node is None:
            raise NodeNotFoundError(node_id=node_id)
        found: dict[str, Any] = node
        return found

    def has_node(self, node_id: str) -> bool:
        """Whether there is such a node."""
        return node_id in self.original_prompt or node_id in self.ephemeral_prompt

    def add_ephemeral_node(self, node_id: str, node_info: dict[str, Any], parent_id: str, display_id: str) -> None:
        """Add a node that `parent_id` expanded into, shown at `display_id`."""
        self.ephemeral_prompt[node_id] = node_info
        self._parents[node_id] = parent_id
        self._real[node_id] = self.get_real_node_id(parent_id)
        self._display[node_id] = self.get_display_node_id(display_id)

    def is_ephemeral(self, node_id: str) -> bool:
        """Whether an expansion made the node."""
        return node_id in self.ephemeral_prompt

    def get_real_node_id(self, node_id: str) -> str:
        """The node of the submitted prompt that the node came from; itself at top level."""
        return self._real.get(node_id, node_id)

    def get_parent_node_id(self, node_id: str) -> str | None:
        """The node that expanded into it; None at top level."""
        return self._parents.get(node_id)

    def get_display_node_id(self, node_id: str) -> str:
        """The node that a front end shows its progress at; itself at top level."""
        return self._display.get(node_id, node_id)

    def all_node_ids(self) -> set[str]:
        """Submitted and ephemeral."""
        return {*self.original_prompt, *self.ephemeral_prompt}

    def in_order(self) -> list[str]:
        """Submitted nodes in prompt order, then ephemeral ones as they came."""
        return [*self.original_prompt, *self.ephemeral_prompt]

    def get_original_prompt(self) -> dict[str, Any]:
        """The submitted prompt, its literals converted."""
        return self.original_prompt
