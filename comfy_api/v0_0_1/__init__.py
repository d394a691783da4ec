"""The V3 API pinned as version 0.0.1, in the same form as the newest one."""

from __future__ import annotations

from comfy_api.latest import ComfyAPI, ComfyAPISync, ComfyExtension, Input, InputImpl, Types, comfy_io, io, ui

__all__ = ["ComfyAPI", "ComfyAPISync", "ComfyExtension", "Input", "InputImpl", "Types", "comfy_io", "io", "ui"]
