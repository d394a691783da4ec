"""JSON as clients of ComfyUI read it: ASCII, default separators, and never a bare NaN or Infinity."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

MANY = 1000  #: members from which an object is encoded one by one: json's encoder lets no other thread run meanwhile
FEW = 16


def dumps(value: Any) -> str:
    """`value` as JSON text. Non-finite floats become null, tuples and sets lists, unknown objects their `str()`."""
    if not _holds_many(value, 3):
        return _dumps(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(_key(key))}: {dumps(item)}" for key, item in value.items()) + "}"
    return "[" + ", ".join(map(dumps, value)) + "]"


def _holds_many(value: Any, levels: int) -> bool:
    """Whether an object of many members lies in `value`, at most so many levels down and with few others beside it."""
    if isinstance(value, dict) and len(value) > MANY:
        return True
    if not isinstance(value, (dict, list, tuple)) or levels == 0 or len(value) > FEW:
        return False
    return any(_holds_many(item, levels - 1) for item in (value.values() if isinstance(value, dict) else value))


def _dumps(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return json.dumps(finite(value), allow_nan=False, default=str)


def dump_bytes(value: Any) -> bytes:
    """`dumps` encoded; pure ASCII."""
    return dumps(value).encode("ascii")


def finite(value: Any) -> Any:
    """A copy of `value` that JSON can hold: mappings with string keys, lists, scalars; other objects stay as they are."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_key(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((finite(item) for item in value), key=str)
    return value


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, bool) or key is None:
        return json.dumps(key)
    return str(key)
