"""Exceptions as clients see them: formatted at once, without paths of the machine or secrets, and then let go.

An exception's traceback holds every local of the frames it passed, tensors included. So nothing here keeps one.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfy.config import PROGRAM_DIR
from comfy.device import faults
from comfy.errors import Interrupted, OutOfDeviceMemory

LONGEST_TEXT = 16_384  # characters of one value in current_inputs
OUT_OF_MEMORY_TIPS = (
    "The GPU has not enough free memory for this step.\n\n"
    "What helps: a smaller picture, a smaller batch, a smaller model, or a tiled VAE node. "
    "Other programs on the same GPU take from the same memory."
)

FATAL_TIPS = "The GPU failed for good: the server ends and is to be started again. Waiting prompts are kept; this one is not tried again."

_BASES = tuple(dict.fromkeys(f"{Path(base)}/" for base in (PROGRAM_DIR, sys.prefix, sys.base_prefix) if str(base) != "/"))


def type_name(kind: type) -> str:
    """`ValueError`, `comfy_execution.graph.NodeInputError`: qualified, builtins without their module."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def short_traceback(error: BaseException) -> list[str]:
    """The traceback as lines of text, its files relative to the server's folder."""
    return [_relative(entry) for entry in traceback.format_tb(error.__traceback__)]


def _relative(text: str) -> str:
    for base in _BASES:
        text = text.replace(base, "")
    return text


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the GPU's memory ran out."""
    return isinstance(error, OutOfDeviceMemory) or faults.is_out_of_memory(error)


class Masker:
    """Takes a job's secrets out of everything that is published."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = sorted({secret for secret in secrets if isinstance(secret, str) and secret}, key=len, reverse=True)

    def text(self, text: str) -> str:
        """`text` with every secret replaced."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def json(self, value: Any) -> Any:
        """Copy of a JSON value with every secret replaced, in keys too; the value itself when there are none."""
        if not self._secrets:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.json(key): self.json(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.json(item) for item in value]
        return value


@dataclass(frozen=True)
class Failure:
    """What went wrong, as text. Nothing in it refers to the exception."""

    interrupted: bool
    out_of_memory: bool
    message: str
    type: str
    traceback: list[str]
    current_inputs: Any
    fatal: str | None = None  #: what the GPU said, when it works no more

    @classmethod
    def of(cls, error: BaseException, masker: Masker, inputs: Mapping[str, Sequence[Any]] | None = None) -> Failure:
        """Format `error`.

        inputs  the node's inputs as lists of elements, when they were built already
        """
        if isinstance(error, RuntimeError) and isinstance(error.__cause__, StopIteration):
            error = error.__cause__  # what Python makes of a StopIteration that leaves a coroutine
        out_of_memory = is_out_of_memory(error)
        fatal = None if out_of_memory else faults.fatal_reason(error)
        tips = OUT_OF_MEMORY_TIPS if out_of_memory else FATAL_TIPS if fatal is not None else ""
        return cls(
            interrupted=isinstance(error, Interrupted),
            out_of_memory=out_of_memory,
            message=masker.text(f"{_text(error)}\n{tips}"),
            type=type_name(type(error)),
            traceback=[masker.text(entry) for entry in short_traceback(error)],
            current_inputs=masker.json(_shown_inputs(inputs)),
            fatal=fatal,
        )


def _shown_inputs(inputs: Mapping[str, Sequence[Any]] | None) -> dict[str, list[Any]]:
    if inputs is None:
        return {}
    return {name: [_shown(element) for element in elements] for name, elements in inputs.items()}


def _shown(value: Any) -> Any:
    if value is None or isinstance(value, int | float | bool | str):
        return value
    return _text(value)[:LONGEST_TEXT]


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception as error:  # a pack's __str__, or a tensor on a device that failed
        return f"<{type_name(type(value))} whose text cannot be made: {type(error).__name__}>"
