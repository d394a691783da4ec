"""Packs in exclusive mode: a job with one of their nodes runs alone (contract: parallel-hazards.md items 48 to 51).

A pack that swaps functions of the core for the length of a call, or keeps models in globals, is right only while nothing
else runs. Ordinary jobs share the process; a job of such a pack waits until none runs and holds the others back. Its
assignments to replaceable names stay among the jobs of exclusive packs.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from comfy import replaceable
from comfy.control import JobControl
from comfy.errors import ConfigError
from comfy.nodes.registry import NodeRegistry

log = logging.getLogger(__name__)

#: a waiting job looks this often whether it was asked to stop: its flag is an event of its own, which wakes nobody here
LOOK_S = 0.05


class Door:
    """Many may be inside together, or one alone; who came first goes first, so neither kind can starve the other."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._line: deque[object] = deque()
        self._sharing = 0
        self._alone = False

    def enter(self, alone: bool, stopped: Callable[[], bool]) -> bool:
        """Wait for one's turn; False when `stopped()` became true meanwhile, and then one is not inside."""
        ticket = object()
        with self._changed:
            self._line.append(ticket)
            try:
                while self._line[0] is not ticket or self._alone or (alone and self._sharing):
                    if stopped():
                        return False
                    self._changed.wait(LOOK_S)
                if alone:
                    self._alone = True
                else:
                    self._sharing += 1
                return True
            finally:
                self._line.remove(ticket)
                self._changed.notify_all()

    def leave(self, alone: bool) -> None:
        """Give one's place back."""
        with self._changed:
            if alone:
                self._alone = False
            else:
                self._sharing -= 1
            self._changed.notify_all()


class Turn:
    """One job's place at the door; used by the job's thread."""

    def __init__(self, turns: Turns, control: JobControl) -> None:
        self._turns = turns
        self._control = control
        self._inside = False
        self.alone = False

    def enter(self, alone: bool) -> None:
        """Wait for a place. A job that is told to stop gets none: its executor ends it before any node runs."""
        door = self._turns.door
        self.alone = alone
        self._inside = door.enter(alone, self._control.stop.is_set)
        if alone and self._inside:
            replaceable.keep_assignments_in(self._turns.bindings)

    def leave(self) -> None:
        """Give the place back."""
        if self._inside:
            self._inside = False
            self._turns.door.leave(self.alone)

    def include(self, class_types: Iterable[str]) -> None:
        """Nodes of these classes were added by an expansion: from here on the job may have to run alone.

        Its shared place is given back first, so two jobs that do this at once cannot wait for each other.
        """
        if not self.alone and self._turns.is_exclusive(class_types):
            self.leave()
            self.enter(alone=True)


class Turns:
    """The process's door, and which packs it is for. One for all lanes."""

    def __init__(self, registry: NodeRegistry, packs: Iterable[str] = ()) -> None:
        """`packs`: names of folders or single files in custom_nodes."""
        self._registry = registry
        self._modules = frozenset(f"custom_nodes.{name}" for name in packs)
        self.door = Door()
        #: what exclusive packs assigned: a pack that replaces a function once, for good, finds it in its next job
        self.bindings: dict[str, Callable[..., Any]] = {}

    def is_exclusive(self, class_types: Iterable[str]) -> bool:
        """Whether one of these node classes belongs to an exclusive pack."""
        if not self._modules:
            return False
        found = (self._registry.classes.get(name) for name in class_types)
        return any(getattr(cls, "RELATIVE_PYTHON_MODULE", None) in self._modules for cls in found)

    @contextmanager
    def turn(self, prompt: Mapping[str, Any], control: JobControl) -> Iterator[Turn]:
        """Hold the place of a job with this prompt for the `with` block."""
        turn = Turn(self, control)
        with replaceable.exclusive(None):
            try:
                turn.enter(self.is_exclusive(class_types(prompt)))
                yield turn
            finally:
                turn.leave()


def class_types(prompt: Mapping[str, Any]) -> list[str]:
    """The class of each node, as far as the prompt says."""
    named = (node.get("class_type") for node in prompt.values() if isinstance(node, Mapping))
    return [name for name in named if isinstance(name, str)]


def exclusive_packs(named: Iterable[str], file: Path) -> frozenset[str]:
    """The names given by flag or variable, and those of `file`: a JSON list. Raises ConfigError when it is something else."""
    names = set(named)
    if file.is_file():
        try:
            listed = json.loads(file.read_bytes())
        except (ValueError, OSError, RecursionError) as error:
            raise ConfigError("The file of exclusive packs cannot be read.", file=str(file), reason=str(error)) from error
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise ConfigError('The file of exclusive packs must be a JSON list of pack names: ["a-pack"].', file=str(file))
        names.update(listed)
    return frozenset(names)


def say_unknown(names: Iterable[str], loaded: Iterable[str]) -> None:
    """Warn of each name that no loaded pack has: a misspelt one protects nobody."""
    present = set(loaded)
    for name in sorted(names):
        if name in present:
            log.info("🔒 %s is in exclusive mode: prompts with its nodes run alone", name)
        else:
            log.warning("exclusive pack %s: no pack of this name is loaded", name)
