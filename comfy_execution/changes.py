"""Has a node changed although its inputs have not? `IS_CHANGED` and `fingerprint_inputs` (contract: execution.md section 14.4)."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from comfy_execution.calling import Caller
from comfy_execution.graph import DynamicPrompt
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.inputs import collect_inputs, early_hidden
from comfy_execution.node_class import NodeClass, NodeClasses, UnknownNodeClass
from comfy_execution.rng import GlobalRng

log = logging.getLogger(__name__)


class Changes:
    """The change values of one prompt's nodes, each computed once. A node without a hook has the value False."""

    def __init__(self, prompt_id: str, dynprompt: DynamicPrompt, classes: NodeClasses, rng: GlobalRng) -> None:
        self._prompt_id = prompt_id
        self._dynprompt = dynprompt
        self._classes = classes
        self._rng = rng
        self._values: dict[str, Any] = {}
        #: the node whose hook runs
        self.at: str | None = None

    def value(self, node_id: str) -> Any:
        """The change value of a node that `compute` was given."""
        return self._values.get(node_id, False)

    async def compute(self, node_ids: Iterable[str]) -> None:
        """Run the hooks of these nodes. An exception counts as a change; Interrupted passes through."""
        for node_id in node_ids:
            node = self._dynprompt.get_node(node_id)
            try:
                node_class = self._classes.of(node)
            except UnknownNodeClass:
                continue  # told when the node is about to run, if it ever is
            if node_class.change_check is None:
                continue
            self.at = node_id
            # the ecosystem finds the value on the node itself
            node["is_changed"] = self._values[node_id] = await self._ask(node_id, node_class, node_class.change_check)
        self.at = None

    async def _ask(self, node_id: str, node_class: NodeClass, method: str) -> Any:
        try:
            inputs = self._dynprompt.get_node(node_id).get("inputs", {})
            found = collect_inputs(node_class, inputs, early_hidden(node_id))
            target = node_class.on_class(dict.fromkeys(found.hidden))
            rng = self._rng if node_class.uses_global_rng else None
            caller = Caller(self._prompt_id, node_id, node_class.input_is_list, rng)
            results = await caller.run(getattr(target, method), found.values)
        except Exception as error:
            log.warning("node %s (%s): %s failed and counts as a change: %s", node_id, node_class.name, method, type(error).__name__)
            return float("nan")
        return [None if isinstance(result, ExecutionBlocker) else result for result in results]
