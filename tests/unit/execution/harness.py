"""Runs a prompt of the test nodes and writes its messages in the shorthand of the contract (websocket.md section 4)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy.control import JobControl
from comfy.nodes.registry import NodeRegistry
from comfy_execution.events import Event, JobResult, Message, PreviewImage
from comfy_execution.job import Job
from comfy_execution.validation import ValidPrompt, validate_prompt
from execution import PromptExecutor
from tests.unit.execution import nodes

Prompt = dict[str, dict[str, Any]]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def registry(classes: Mapping[str, Any] | None = None) -> NodeRegistry:
    made = NodeRegistry()
    made.add(classes or nodes.CLASSES, module="tests")
    return made


def validate(prompt: Any, targets: Any = None, classes: Mapping[str, Any] | None = None) -> ValidPrompt:
    return asyncio.run(validate_prompt("id", prompt, registry(classes), targets))


def shorthand(event: Event) -> str:
    if isinstance(event, PreviewImage):
        return f"preview {event.node_id}"
    assert isinstance(event, Message)
    data = event.data
    if event.name == "progress_state":
        return "PS{" + ", ".join(f"{node_id}:{entry['state'][0]}" for node_id, entry in data["nodes"].items()) + "}"
    if event.name in ("executing", "executed"):
        return f"{event.name} {data['node']}"
    if event.name == "progress":
        return f"progress {data['node']} {data['value']}/{data['max']}"
    return f"{event.name} {data['nodes']}" if event.name == "execution_cached" else event.name


@dataclass
class Ran:
    result: JobResult
    events: list[Event]
    control: JobControl

    @property
    def short(self) -> list[str]:
        return [shorthand(event) for event in self.events]

    def of(self, name: str) -> list[Mapping[str, Any]]:
        return [event.data for event in self.events if isinstance(event, Message) and event.name == name]

    @property
    def error(self) -> Mapping[str, Any]:
        (data,) = self.of("execution_error")
        return data


@dataclass
class Bench:
    """One executor and what it published."""

    policy: str = "classic"
    lru: int = 0
    lane: int = 0
    show_gpu_id: bool = False
    keep_events: bool = True
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.executor = PromptExecutor(
            registry(), self.lane, self._publish, cache_policy=self.policy, cache_lru=self.lru, show_gpu_id=self.show_gpu_id
        )

    def _publish(self, event: Event) -> None:
        if self.keep_events:
            self.events.append(event)

    def run(
        self,
        prompt: Prompt,
        *outputs: str,
        client: str | None = "client",
        secrets: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
        stopped: bool = False,
    ) -> Ran:
        """Run `outputs` (default: all output nodes, in prompt order) without validation."""
        classes = self.executor.registry.classes
        outputs = outputs or tuple(key for key, entry in prompt.items() if getattr(classes.get(entry["class_type"]), "OUTPUT_NODE", False))
        control = JobControl("job", client, self.lane)
        if stopped:
            control.stop.set()
        job = Job("job", 0, prompt, outputs, {"client_id": client, **(extra or {})}, secrets or {})
        self.events.clear()
        result = self.executor.execute(job, control)
        return Ran(result, list(self.events), control)


def texts(ran: Ran) -> dict[str, Any]:
    """What each node showed."""
    return {node_id: ui["text"] for node_id, ui in ran.result.outputs.items() if "text" in ui}
