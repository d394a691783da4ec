"""Kinds of binary websocket frames, at the name where custom nodes look for them (contract: websocket.md section 5)."""

from __future__ import annotations

from comfy.web.frames import BinaryEventTypes

__all__ = ["BinaryEventTypes"]
