"""Functions that custom nodes replace by assignment, in one table.

Packs assign names such as `comfy.samplers.sampling_function` and expect the core to call what they assigned. The core
defines such a function with `@replaceable("comfy.samplers.sampling_function")`; callers go through the returned
dispatcher, which looks the binding up at each call. The edge module that owns the name calls `write_through(__name__)`
once: from then on, assigning the name on that module rebinds the table and reading it gives the present binding.

A binding is process-wide, as in the reference. Inside `exclusive()` (a job of a pack in exclusive mode) assignments
stay among such jobs instead.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

_original: dict[str, Callable[..., Any]] = {}
_bound: dict[str, Callable[..., Any]] = {}
_NEW: dict[str, Callable[..., Any]] = {}  # stands for "a new table"; never filled
_job_bound: ContextVar[dict[str, Callable[..., Any]] | None] = ContextVar("comfy_job_bound", default=None)


def lookup(name: str) -> Callable[..., Any]:
    """The function that a call of `name` runs now; KeyError when no such name was declared."""
    own = _job_bound.get()
    if own is not None and name in own:
        return own[name]
    return _bound.get(name) or _original[name]


def bound(prefix: str) -> list[str]:
    """The names starting with `prefix` that are bound to something else than their original, for the calling context."""
    names = {*_bound, *(_job_bound.get() or {})}
    return sorted(name for name in names if name.startswith(prefix) and lookup(name) is not _original[name])


def replaceable(name: str) -> Callable[[F], F]:
    """Declare the decorated function as the original of `name` and return its dispatcher."""

    def declare(original: F) -> F:
        _original[name] = original

        @functools.wraps(original)
        def dispatch(*args: Any, **kwargs: Any) -> Any:
            return lookup(name)(*args, **kwargs)

        dispatch.__replaceable__ = name  # type: ignore[attr-defined]
        return cast(F, dispatch)

    return declare


def rebind(name: str, function: Callable[..., Any]) -> None:
    """Bind `name` to `function`; giving back the original or its dispatcher removes the binding."""
    if getattr(function, "__replaceable__", None) == name or function is _original[name]:
        function = _original[name]
    own = _job_bound.get()
    if own is not None:
        own[name] = function
    elif function is _original[name]:
        _bound.pop(name, None)
    else:
        _bound[name] = function


@contextmanager
def exclusive(kept: dict[str, Callable[..., Any]] | None = _NEW) -> Iterator[None]:
    """Keep assignments made in the `with` block to the calling context: in `kept`, or in a table that ends with the block.

    With None they are process-wide, until `keep_assignments_in` says otherwise for the rest of the block.
    """
    token = _job_bound.set({} if kept is _NEW else kept)
    try:
        yield
    finally:
        _job_bound.reset(token)


def keep_assignments_in(kept: dict[str, Callable[..., Any]]) -> None:
    """From now on, and until the `exclusive()` block around ends, assignments of the calling context go to `kept`."""
    _job_bound.set(kept)


class _WriteThrough(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        dotted = f"{self.__name__}.{name}"
        if dotted in _original and callable(value):
            rebind(dotted, value)
        else:
            super().__setattr__(name, value)

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            dotted = f"{super().__getattribute__('__name__')}.{name}"
            if dotted in _original:
                return lookup(dotted)
        return super().__getattribute__(name)


def write_through(module_name: str) -> None:
    """Make the replaceable names of the edge module `module_name` read from and write to the table."""
    sys.modules[module_name].__class__ = _WriteThrough
