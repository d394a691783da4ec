"""The newest V3 API: `from comfy_api.latest import ComfyExtension, io, ui` (contract: custom-nodes.md section 4)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from comfy.nodes.v3 import io, ui
from comfy_api.execution import ComfyAPI, ComfyAPISync
from comfy_api.latest._namespaces import Input, InputImpl, Types

comfy_io = io

__all__ = ["ComfyAPI", "ComfyAPISync", "ComfyExtension", "Input", "InputImpl", "Types", "comfy_io", "io", "ui"]


class ComfyExtension(ABC):
    """What a pack's `comfy_entrypoint` returns."""

    async def on_load(self) -> None:
        """For the pack's own preparations; this version never calls it."""
        return

    @abstractmethod
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The pack's node classes."""


def __getattr__(name: str) -> Any:
    """`IO` and `UI`: the same as `io` and `ui`."""
    if name in ("IO", "UI"):
        return {"IO": io, "UI": ui}[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
