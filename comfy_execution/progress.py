"""Progress of one job: a registry of its nodes' states, and what is sent of it (contract: execution.md section 18).

`get_progress_state()` gives the registry of the calling code's job through a context variable: two lanes, two registries.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from typing import Any, TypedDict

import comfy.control
from comfy_execution.events import Audience, Event, Message, PreviewImage
from comfy_execution.graph import DynamicPrompt
from comfy_execution.utils import get_executing_context

log = logging.getLogger(__name__)

JPEG_QUALITY = 95
PNG_LEVEL = 1


class NodeState(Enum):
    """Where a node of a running prompt is."""

    Pending = "pending"
    Running = "running"
    Finished = "finished"
    Error = "error"


class NodeProgressState(TypedDict):
    """The state of one node, and how far it is."""

    state: NodeState
    value: float
    max: float


class ProgressHandler:
    """Base class of those who want to know; every method may be left as it is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.enabled = True

    def set_registry(self, registry: ProgressRegistry) -> None:
        """Called when the handler is registered."""

    def start_handler(self, node_id: str, state: NodeProgressState, prompt_id: str) -> None:
        """A node starts."""

    def update_handler(
        self, node_id: str, value: float, max_value: float, state: NodeProgressState, prompt_id: str, image: Any = None
    ) -> None:
        """A node reports; `image` is (format, PIL image, longest side or None)."""

    def finish_handler(self, node_id: str, state: NodeProgressState, prompt_id: str) -> None:
        """A node is done."""

    def reset(self) -> None:
        """The prompt is over."""

    def enable(self) -> None:
        """Be told again."""
        self.enabled = True

    def disable(self) -> None:
        """Be told no more."""
        self.enabled = False


class ProgressRegistry:
    """The nodes of one job that have started, in that order."""

    def __init__(self, prompt_id: str, dynprompt: DynamicPrompt) -> None:
        self.prompt_id = prompt_id
        self.dynprompt = dynprompt
        self.nodes: dict[str, NodeProgressState] = {}
        self.handlers: dict[str, ProgressHandler] = {}

    def register_handler(self, handler: ProgressHandler) -> None:
        """Tell `handler` from now on; it takes the place of one with its name."""
        self.handlers[handler.name] = handler

    def unregister_handler(self, handler_name: str) -> None:
        """Forget a handler."""
        self.handlers.pop(handler_name, None)

    def enable_handler(self, handler_name: str) -> None:
        """Tell a handler again."""
        if handler_name in self.handlers:
            self.handlers[handler_name].enable()

    def disable_handler(self, handler_name: str) -> None:
        """Tell a handler no more."""
        if handler_name in self.handlers:
            self.handlers[handler_name].disable()

    def ensure_entry(self, node_id: str) -> NodeProgressState:
        """The state of a node, made when it is new."""
        return self.nodes.setdefault(node_id, NodeProgressState(state=NodeState.Pending, value=0, max=1))

    def start_progress(self, node_id: str) -> None:
        """A node starts: value 0.0 of 1.0."""
        entry = self.ensure_entry(node_id)
        entry.update({"state": NodeState.Running, "value": 0.0, "max": 1.0})
        for handler in self._told():
            handler.start_handler(node_id, entry, self.prompt_id)

    def update_progress(self, node_id: str, value: float, max_value: float, image: Any = None) -> None:
        """A node reports `value` of `max_value`."""
        entry = self.ensure_entry(node_id)
        entry.update({"state": NodeState.Running, "value": value, "max": max_value})
        for handler in self._told():
            handler.update_handler(node_id, value, max_value, entry, self.prompt_id, image)

    def finish_progress(self, node_id: str) -> None:
        """A node is done: its value is its maximum."""
        entry = self.ensure_entry(node_id)
        entry["state"], entry["value"] = NodeState.Finished, entry["max"]
        for handler in self._told():
            handler.finish_handler(node_id, entry, self.prompt_id)

    def reset_handlers(self) -> None:
        """The prompt is over."""
        for handler in self._told():
            handler.reset()

    def _told(self) -> list[ProgressHandler]:
        return [handler for handler in self.handlers.values() if handler.enabled]


_nobody = ProgressRegistry("", DynamicPrompt({}))  # what code outside any job reports to
_registry: ContextVar[ProgressRegistry] = ContextVar("comfy_progress_registry", default=_nobody)


def get_progress_state() -> ProgressRegistry:
    """The registry of the calling code's job; outside any job an empty one that nobody reads."""
    return _registry.get()


def add_progress_handler(handler: ProgressHandler) -> None:
    """Register `handler` with the calling code's job."""
    registry = get_progress_state()
    handler.set_registry(registry)
    registry.register_handler(handler)


def reset_progress_state(prompt_id: str, dynprompt: DynamicPrompt) -> None:
    """Give the calling context a new registry without handlers."""
    get_progress_state().reset_handlers()
    _registry.set(ProgressRegistry(prompt_id, dynprompt))


@contextmanager
def job_progress(prompt_id: str, dynprompt: DynamicPrompt) -> Iterator[ProgressRegistry]:
    """Give the calling context a registry of its own for the `with` block."""
    registry = ProgressRegistry(prompt_id, dynprompt)
    token = _registry.set(registry)
    try:
        yield registry
    finally:
        _registry.reset(token)
        registry.reset_handlers()
        registry.handlers.clear()  # they refer to the registry: without this only the collector could free the job


def encode_preview(preview: Any) -> tuple[bytes, str]:
    """(format, PIL image, longest side or None) -> (encoded bytes, MIME type), scaled to fit with its aspect kept."""
    from PIL import Image, ImageOps

    kind, image, longest = preview
    if longest is not None:
        image = ImageOps.contain(image, (longest, longest), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    if str(kind).upper() == "PNG":
        image.save(buffer, format="PNG", compress_level=PNG_LEVEL)
        return buffer.getvalue(), "image/png"
    image.convert("RGB").save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue(), "image/jpeg"


class Publisher(ProgressHandler):
    """Sends a job's progress to its websocket: `progress_state` on each change, and previews."""

    def __init__(self, registry: ProgressRegistry, control: comfy.control.JobControl, publish: Callable[[Event], None]) -> None:
        super().__init__("publisher")
        self._registry = registry
        self._control = control
        self._publish = publish
        self._states: dict[str, dict[str, Any]] = {}
        registry.register_handler(self)

    def start_handler(self, node_id: str, state: NodeProgressState, prompt_id: str) -> None:
        self._send_states(node_id, state)

    def finish_handler(self, node_id: str, state: NodeProgressState, prompt_id: str) -> None:
        self._send_states(node_id, state)

    def update_handler(
        self, node_id: str, value: float, max_value: float, state: NodeProgressState, prompt_id: str, image: Any = None
    ) -> None:
        self._send_states(node_id, state)
        if image is not None:
            self._send_preview(node_id, image)

    def sink(self, value: float, maximum: float, preview: Any, node_id: str | None) -> None:
        """What `comfy.control.current().progress` of the job is. Raises Interrupted when the job was asked to stop."""
        if node_id is None:
            context = get_executing_context()
            node_id = context.node_id if context is not None else self._control.node_id
        self._control.check()
        if node_id is None:
            return
        self._registry.update_progress(node_id, value, maximum, preview)
        prompt_id = self._registry.prompt_id
        self._send("progress", {"value": value, "max": maximum, "prompt_id": prompt_id, "node": node_id})

    def _send_states(self, node_id: str, entry: NodeProgressState) -> None:
        # each message tells every node, so only what changed is made anew: a graph may have ten thousand of them
        state = {"value": entry["value"], "max": entry["max"], "state": entry["state"].value, **self._identity(node_id)}
        self._states[node_id] = state
        self._send("progress_state", {"prompt_id": self._registry.prompt_id, "nodes": self._states.copy()})

    def _identity(self, node_id: str) -> dict[str, Any]:
        graph = self._registry.dynprompt
        return {
            "node_id": node_id,
            "prompt_id": self._registry.prompt_id,
            "display_node_id": graph.get_display_node_id(node_id),
            "parent_node_id": graph.get_parent_node_id(node_id),
            "real_node_id": graph.get_real_node_id(node_id),
        }

    def _send(self, name: str, data: dict[str, Any]) -> None:
        control = self._control
        self._publish(Message(name, data, Audience.OWNER_OR_ALL, control.client_id, self._registry.prompt_id, control.lane))

    def _send_preview(self, node_id: str, preview: Any) -> None:
        try:
            data, mime = encode_preview(preview)
        except Exception as error:  # a picture on the way must not cost the job
            log.warning("node %s: its preview could not be encoded: %s", node_id, error)
            return
        control = self._control
        identity = self._identity(node_id)
        self._publish(PreviewImage(image=data, image_type=mime, client_id=control.client_id, lane=control.lane, **identity))
