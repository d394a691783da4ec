"""Prompt JSON -> ValidPrompt, or PromptInvalid in the words of the contract (execution.md sections 2 to 4).

Runs on the HTTP loop. Walks the graph with a stack of its own, so that a chain of ten thousand nodes is no deeper than one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy.errors import PromptInvalid
from comfy.nodes.registry import NodeRegistry
from comfy_execution.node_class import NodeClasses
from comfy_execution.validation_checks import NodeCheck, Report, exception_report, links, report, validate_node_input
from comfy_execution.validation_structure import Structure

__all__ = ["DEEPEST_VALUE", "ValidPrompt", "validate_node_input", "validate_prompt"]

DEEPEST_VALUE = 200  # levels of lists and objects inside one node
LARGE = 1000  # nodes from which a prompt is copied and walked in a thread, so that other clients need not wait
NODES_PER_TURN = 256  # nodes checked before the HTTP loop gets its turn


@dataclass(frozen=True)
class ValidPrompt:
    """A prompt that can run.

    prompt       own copy of what was sent, its literals converted
    outputs      ids of the output nodes to run, numbers first and in order
    node_errors  why other outputs were dropped; empty when none was
    """

    prompt: dict[str, Any]
    outputs: tuple[str, ...]
    node_errors: dict[str, Any] = field(default_factory=dict)


async def validate_prompt(prompt_id: str, prompt: Any, registry: NodeRegistry, targets: Iterable[str] | None = None) -> ValidPrompt:
    """Check a prompt and convert its literals.

    targets  ids of the outputs that shall run; None: all
    Raises PromptInvalid when nothing of it can run.
    """
    classes = NodeClasses(registry)

    def prepare() -> tuple[dict[str, Any], list[str], _Validation]:
        own = _checked_copy(prompt, registry)
        outputs = _select_outputs(own, classes, targets)
        if not outputs:
            raise PromptInvalid(report("prompt_no_outputs", "Prompt has no outputs", ""))
        return own, outputs, _Validation(prompt_id, own, classes)

    large = isinstance(prompt, Mapping) and len(prompt) > LARGE
    own, outputs, validation = await asyncio.to_thread(prepare) if large else prepare()
    for output in outputs:
        await validation.check_output(output)
    if not validation.good:
        details = "\n".join(f"{error['message']}: {error['details']}" for error in validation.headline(outputs))
        raise PromptInvalid(
            report("prompt_outputs_failed_validation", "Prompt outputs failed validation", details), validation.node_errors()
        )
    return ValidPrompt(own, tuple(validation.good), validation.node_errors())


def _invalid(message: str, node_id: str | None = None) -> PromptInvalid:
    details = "" if node_id is None else f"Node ID '#{node_id}'"
    return PromptInvalid(report("invalid_prompt", message, details))


def _checked_copy(prompt: Any, registry: NodeRegistry) -> dict[str, Any]:
    """The whole-prompt checks on every node, connected or not; the first one that fails is raised."""
    if not isinstance(prompt, Mapping):
        raise _invalid("Cannot execute because the prompt is not an object of nodes.")
    own: dict[str, Any] = {}
    for node_id, node in prompt.items():
        if not isinstance(node_id, str):
            raise _invalid("Cannot execute because a node id is not a string.", str(node_id))
        if not isinstance(node, Mapping):
            raise _invalid("Cannot execute because a node is not an object.", node_id)
        if "class_type" not in node:
            raise _invalid("Cannot execute because a node is missing the class_type property.", node_id)
        class_type = node["class_type"]
        if not isinstance(class_type, str) or class_type not in registry.classes:
            raise _invalid(f"Cannot execute because node {class_type} does not exist.", node_id)
        if not isinstance(node.get("inputs", {}), Mapping):
            raise _invalid("Cannot execute because the inputs of a node are not an object.", node_id)
        try:
            own[node_id] = _copy(node, DEEPEST_VALUE)
        except RecursionError:
            raise _invalid(f"Cannot execute because a node has values nested more than {DEEPEST_VALUE} levels deep.", node_id) from None
    return own


def _copy(value: Any, levels: int) -> Any:
    if isinstance(value, Mapping | list | tuple) and levels == 0:
        raise RecursionError
    if isinstance(value, Mapping):
        return {key: _copy(item, levels - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(item, levels - 1) for item in value]
    return value


def _select_outputs(prompt: Mapping[str, Any], classes: NodeClasses, targets: Iterable[str] | None) -> list[str]:
    if targets is not None and (isinstance(targets, str) or not isinstance(targets, Iterable)):
        raise _invalid("Cannot execute because partial_execution_targets is not a list of node ids.")
    wanted = None if targets is None else {target for target in targets if isinstance(target, str)}
    selected = []
    for node_id, node in prompt.items():
        try:
            is_output = classes.of(node).is_output
        except Exception as error:  # a V3 class says it in code of its own
            raise _invalid(f"Cannot execute because node {node['class_type']} cannot describe itself: {error}", node_id) from error
        if is_output and (wanted is None or node_id in wanted):
            selected.append(node_id)
    return sorted(selected, key=_number_first)


def _number_first(node_id: str) -> tuple[int, int, str]:
    if node_id.isascii() and node_id.isdecimal():
        return 0, len(node_id.lstrip("0")), node_id.lstrip("0")
    return 1, 0, node_id


class _Validation:
    """Results of the nodes of one prompt, each checked once however many outputs depend on it."""

    def __init__(self, prompt_id: str, prompt: dict[str, Any], classes: NodeClasses) -> None:
        self.prompt_id = prompt_id
        self.prompt = prompt
        self.classes = classes
        self.structure = Structure(prompt)
        self.valid: dict[str, bool] = {}  # with everything that the node depends on
        self.errors: dict[str, list[Report]] = {}
        self.dependents: dict[str, list[str]] = {}
        self.good: list[str] = []
        self._checked = 0

    async def check_output(self, output: str) -> None:
        """Check one output node and all that it depends on."""
        await self._check_declared(output)
        sound = self.structure.check(output, self.errors)
        if self.valid[output] and sound:
            self.good.append(output)
            return
        for node_id in self.structure.ancestors(output):
            if self.errors.get(node_id):
                self.dependents.setdefault(node_id, []).append(output)

    async def _check_declared(self, output: str) -> None:
        """Depth first over declared links: a node is checked after those it takes its inputs from."""
        stack: list[tuple[str, tuple[str, Any, Any] | None, bool]] = [(output, None, False)]
        entered: set[str] = set()
        while stack:
            node_id, linked, seen = stack.pop()
            if node_id in self.valid:
                continue
            if not seen:
                if node_id in entered:
                    continue  # a cycle, which the structure reports
                entered.add(node_id)
                stack.append((node_id, linked, True))
                stack.extend((source, via, False) for source, via in reversed(self._sources(node_id)))
                continue
            errors = await self._check_node(node_id, linked)
            if errors:
                self.errors.setdefault(node_id, []).extend(errors)
            self.valid[node_id] = not errors and all(self.valid.get(source, True) for source, _ in self._sources(node_id))

    def _sources(self, node_id: str) -> list[tuple[str, tuple[str, Any, Any]]]:
        """(source, (input name, input config, link)) of the declared links to nodes of the prompt."""
        inputs = self.prompt[node_id].get("inputs", {})
        found = []
        try:
            node_class = self.classes.of(self.prompt[node_id])
            for name, link in links(inputs):
                kind, group, options = node_class.input(name)
                if group in ("required", "optional") and link[0] in self.prompt:
                    found.append((link[0], (name, [kind, options], link)))
        except Exception:
            return []  # the class cannot describe itself: the check of the node meets and reports the same exception
        return found

    async def _check_node(self, node_id: str, linked: tuple[str, Any, Any] | None) -> list[Report]:
        self._checked += 1
        if self._checked % NODES_PER_TURN == 0:
            await asyncio.sleep(0)
        check: NodeCheck | None = None
        try:
            check = NodeCheck(self.prompt, node_id, self.classes)
            check.run()
            await check.run_validator(self.prompt_id)
        except Exception as error:
            found = check.errors if check is not None else []
            return [*found, exception_report(error, linked)]
        return check.errors

    def headline(self, outputs: Iterable[str]) -> list[Report]:
        """The errors that the answer's `details` tells: those of the outputs themselves, and cycles, wherever they are."""
        own = [error for output in outputs for error in self.errors.get(output, [])]
        upstream = [error for node_id, errors in self.errors.items() if node_id not in self.good for error in errors]
        return own + [error for error in upstream if error["type"] == "dependency_cycle" and error not in own]

    def node_errors(self) -> dict[str, Any]:
        """The `node_errors` object: the nodes with errors of their own."""
        return {
            node_id: {
                "errors": errors,
                "dependent_outputs": self.dependents.get(node_id, []),
                "class_type": self.prompt[node_id]["class_type"],
            }
            for node_id, errors in self.errors.items()
            if errors
        }
