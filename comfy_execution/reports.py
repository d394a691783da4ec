"""The messages of one job, in the words of the contract (execution.md section 15, websocket.md section 3)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from comfy.control import JobControl
from comfy_execution.events import Audience, Event, Message
from comfy_execution.failures import Failure
from comfy_execution.graph import DynamicPrompt
from comfy_execution.job import JobState

log = logging.getLogger(__name__)


def _now_ms() -> int:
    return int(time.time() * 1000)


def error_outside_nodes(prompt_id: str, kind: str, message: str) -> dict[str, Any]:
    """Data of an `execution_error` that no node is to blame for."""
    facts: dict[str, Any] = {"prompt_id": prompt_id, "node_id": None, "node_type": None, "executed": [], "traceback": []}
    facts |= {"exception_type": kind, "exception_message": message, "current_inputs": {}, "current_outputs": []}
    return {**facts, "timestamp": _now_ms()}


class Reports:
    """Publishes what happens to a job, and keeps what its history will say."""

    def __init__(self, control: JobControl, dynprompt: DynamicPrompt, publish: Callable[[Event], None], gpu_id: int | None) -> None:
        self._control = control
        self._graph = dynprompt
        self._publish = publish
        self._gpu_id = gpu_id  # None: not shown
        #: nodes that ran to their end
        self.done: list[str] = []
        #: (event name, data) as history keeps them
        self.messages: list[tuple[str, Mapping[str, Any]]] = []
        self.out_of_memory = False
        self.fatal: str | None = None

    def started(self) -> None:
        """The job begins."""
        data: dict[str, Any] = {"timestamp": _now_ms()}
        if self._gpu_id is not None:
            data["gpu_id"] = self._gpu_id
        self._record("execution_start", data)

    def cached(self, node_ids: list[str]) -> None:
        """Nodes whose outputs are there already."""
        self._record("execution_cached", {"nodes": node_ids, "timestamp": _now_ms()})

    def executing(self, node_id: str) -> None:
        """A node is started, or started again."""
        self._send("executing", {"node": node_id, "display_node": self._graph.get_display_node_id(node_id)})

    def executed(self, node_id: str, ui: Mapping[str, Any] | None) -> None:
        """A node's UI result, now or from the cache."""
        self._send("executed", {"node": node_id, "display_node": self._graph.get_display_node_id(node_id), "output": ui})

    def blocked(self, node_id: str, message: str) -> None:
        """A node was not called because of a blocker with a message. The job goes on, and history does not keep this."""
        facts = self._about(node_id, node_id)
        facts.update(
            exception_message=f"Execution Blocked: {message}",
            exception_type="ExecutionBlocked",
            traceback=[],
            current_inputs=[],
            current_outputs=[],
        )
        self._send("execution_error", facts, Audience.OWNER_OR_ALL)

    def cycle(self, node_id: str) -> JobState:
        """The nodes that are left wait for each other."""
        facts = self._about(node_id, self._graph.get_real_node_id(node_id))
        facts.update(
            exception_message="Dependency cycle detected",
            exception_type="graph.DependencyCycleError",
            traceback=[],
            current_inputs=[],
            current_outputs=[],
            timestamp=_now_ms(),
        )
        self._record("execution_error", facts)
        return JobState.FAILED

    def failed(self, failure: Failure, node_id: str) -> JobState:
        """The job ended before its outputs were made: by an exception, or because it was asked to stop."""
        real = self._graph.get_real_node_id(node_id)
        facts = self._about(real, real)
        if failure.interrupted:
            self._record("execution_interrupted", {**facts, "timestamp": _now_ms()}, Audience.OWNER_OR_ALL)
            return JobState.INTERRUPTED
        log.error(
            "node %s (%s) failed: %s: %s\n%s",
            node_id,
            facts["node_type"],
            failure.type,
            failure.message.rstrip(),
            "".join(failure.traceback),
            extra={"action": "node_failed"},
        )
        self.out_of_memory, self.fatal = failure.out_of_memory, failure.fatal
        facts.update(
            exception_message=failure.message,
            exception_type=failure.type,
            traceback=failure.traceback,
            current_inputs=failure.current_inputs,
            current_outputs=self._graph.in_order(),
            timestamp=_now_ms(),
        )
        self._record("execution_error", facts)
        return JobState.FAILED

    def succeeded(self) -> JobState:
        """Every requested output was made."""
        self._record("execution_success", {"timestamp": _now_ms()})
        return JobState.SUCCEEDED

    def meta(self, node_id: str) -> dict[str, Any]:
        """Whose result a node's is, as history shows it."""
        return {
            "node_id": node_id,
            "display_node": self._graph.get_display_node_id(node_id),
            "parent_node": self._graph.get_parent_node_id(node_id),
            "real_node_id": self._graph.get_real_node_id(node_id),
        }

    def _about(self, node_id: str, type_of: str) -> dict[str, Any]:
        node = self._graph.get_node(type_of) if self._graph.has_node(type_of) else {}
        return {"node_id": node_id, "node_type": node.get("class_type", ""), "executed": list(self.done)}

    def _record(self, name: str, data: dict[str, Any], audience: Audience = Audience.OWNER) -> None:
        data = {"prompt_id": self._control.prompt_id, **data}
        self.messages.append((name, data))
        self._post(name, data, audience)

    def _send(self, name: str, data: dict[str, Any], audience: Audience = Audience.OWNER) -> None:
        self._post(name, {**data, "prompt_id": self._control.prompt_id}, audience)

    def _post(self, name: str, data: dict[str, Any], audience: Audience) -> None:
        control = self._control
        self._publish(Message(name, data, audience, control.client_id, control.prompt_id, control.lane))
