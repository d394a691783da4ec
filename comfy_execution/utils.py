"""Which node call is this? A context variable that is right in the lane's thread, in async nodes and in copied contexts."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Any, NamedTuple


class ExecutionContext(NamedTuple):
    """One call of a node's function: the job, the node (inside an expansion its ephemeral id), the index over its lists."""

    prompt_id: str
    node_id: str
    list_index: int | None


_context: ContextVar[ExecutionContext | None] = ContextVar("comfy_executing_context", default=None)


def get_executing_context() -> ExecutionContext | None:
    """The node call that the calling code belongs to; None outside node functions."""
    return _context.get()


class CurrentNodeContext:
    """`with CurrentNodeContext(prompt_id, node_id, list_index):` makes that the calling code's node call."""

    def __init__(self, prompt_id: str, node_id: str, list_index: int | None = None) -> None:
        self._new = ExecutionContext(prompt_id, node_id, list_index)
        self._token: Token[ExecutionContext | None] | None = None

    def __enter__(self) -> ExecutionContext:
        self._token = _context.set(self._new)
        return self._new

    def __exit__(self, *_: Any) -> None:
        if self._token is not None:
            _context.reset(self._token)
            self._token = None
