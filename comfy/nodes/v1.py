"""Declaring inputs of nodes in the old style: the widgets that many of them share."""

from __future__ import annotations

from typing import Any

Declared = tuple[Any, ...]


def number(default: float, low: float, high: float, step: float = 0.01, **more: Any) -> Declared:
    """A FLOAT widget; it is not rounded unless `round` says so."""
    return ("FLOAT", {"default": default, "min": low, "max": high, "step": step, "round": False, **more})


def rounded(default: float, low: float, high: float, step: float = 0.01) -> Declared:
    """A FLOAT widget that the front end rounds to its step."""
    return ("FLOAT", {"default": default, "min": low, "max": high, "step": step})


def whole(default: int, low: int, high: int, **more: Any) -> Declared:
    """An INT widget."""
    return ("INT", {"default": default, "min": low, "max": high, **more})


def required(**inputs: Declared) -> dict[str, Any]:
    """INPUT_TYPES of a node whose inputs are all required."""
    return {"required": inputs}
