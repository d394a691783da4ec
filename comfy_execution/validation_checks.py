"""What can be wrong with one node of a prompt, in the words of the contract (execution.md section 3.3)."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from comfy_execution.calling import Caller
from comfy_execution.failures import short_traceback, type_name
from comfy_execution.graph_utils import ExecutionBlocker, is_link
from comfy_execution.inputs import collect_inputs, early_hidden, unwrap
from comfy_execution.node_class import NodeClass, NodeClasses

CONVERT = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}
MOST_CHOICES_SHOWN = 20

Report = dict[str, Any]


def report(kind: str, message: str, details: str, **extra_info: Any) -> Report:
    """One error object: exactly the four keys that clients read."""
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info}


def exception_report(error: BaseException, linked: tuple[str, Any, Any] | None) -> Report:
    """An exception that escaped while a node was checked.

    linked  (input name, input config, link) of the consumer through which the node was reached; None for an output node
    """
    facts: Report = {"exception_type": type_name(type(error)), "traceback": short_traceback(error)}
    if linked is None:
        return report("exception_during_validation", "Exception when validating node", str(error), **facts)
    name, config, link = linked
    return report(
        "exception_during_inner_validation",
        "Exception when validating inner node",
        str(error),
        input_name=name,
        input_config=config,
        exception_message=str(error),
        **facts,
        linked_node=link,
    )


def validate_node_input(received_type: Any, input_type: Any, strict: bool = False) -> bool:
    """Whether an output of `received_type` fits an input of `input_type` (contract: execution.md section 3.4).

    Uses `!=` on purpose: the any-types of packs are str subclasses that override it.
    strict  every received type must be accepted, not just one of them
    """
    if not received_type != input_type:  # noqa: SIM202
        return True
    if not isinstance(received_type, str) or not isinstance(input_type, str):
        return False
    received = {part.strip() for part in received_type.split(",")}
    expected = {part.strip() for part in input_type.split(",")}
    return received <= expected if strict else bool(received & expected)


class NodeCheck:
    """Checks one node and converts its literals in place; `errors` says what is wrong.

    Every method raises what the class's own code raises, and KeyError, IndexError or TypeError for a link to nothing.
    """

    def __init__(self, prompt: Mapping[str, Any], node_id: str, classes: NodeClasses) -> None:
        self.prompt = prompt
        self.node_id = node_id
        self.classes = classes
        self.errors: list[Report] = []
        self.received: dict[str, Any] = {}
        self.node_class: NodeClass = classes.of(prompt[node_id])
        self.inputs: dict[str, Any] = prompt[node_id]["inputs"]
        self._names, self._any_name = _parameters(self.node_class)

    def run(self) -> None:
        """Every declared input: missing, link or literal."""
        for name, required in self.node_class.declared_inputs():
            if name not in self.inputs:
                if required:
                    self.errors.append(report("required_input_missing", "Required input is missing", name, input_name=name))
                continue
            kind, _, options = self.node_class.input(name)
            if isinstance(self.inputs[name], list):
                self._check_link(name, kind, options)
            else:
                self._check_literal(name, kind, options)

    def _check_link(self, name: str, kind: Any, options: Mapping[str, Any]) -> None:
        link = self.inputs[name]
        config = [kind, options]
        if len(link) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            self.errors.append(report("bad_linked_input", message, name, input_name=name, input_config=config, received_value=link))
            return
        returned = self.classes.of(self.prompt[link[0]]).return_types
        if isinstance(link[1], bool) or not isinstance(link[1], int):
            raise TypeError(f"slot index of the link must be an integer, not {type(link[1]).__name__}")
        if not 0 <= link[1] < len(returned):  # a negative index would count from the end
            raise IndexError("tuple index out of range")
        received = self.received[name] = returned[link[1]]
        if "input_types" not in self._names and not validate_node_input(received, kind):
            details = f"{name}, received_type({plain(received)}) mismatch input_type({plain(kind)})"
            self.errors.append(
                report(
                    "return_type_mismatch",
                    "Return type mismatch between linked nodes",
                    details,
                    input_name=name,
                    input_config=config,
                    received_type=received,
                    linked_node=link,
                )
            )

    def _check_literal(self, name: str, kind: Any, options: Mapping[str, Any]) -> None:
        try:
            value = convert(unwrap(self.inputs[name]), kind)
        except (TypeError, ValueError, OverflowError) as error:
            text = str(error)
            details = f"{name}, {unwrap(self.inputs[name])}, {text}"
            self.errors.append(
                report(
                    "invalid_input_type",
                    f"Failed to convert an input value to a {plain(kind)} value",
                    details,
                    input_name=name,
                    input_config=[kind, options],
                    received_value=unwrap(self.inputs[name]),
                    exception_message=text,
                )
            )
            return
        # a literal list that looks like a link stays wrapped: unwrapped it would be one
        self.inputs[name] = {"__value__": value} if is_link(value) else value
        if not self._any_name and name not in self._names:
            self._check_range(name, kind, options, value)

    def _check_range(self, name: str, kind: Any, options: Mapping[str, Any], value: Any) -> None:
        facts: Report = {"input_name": name, "input_config": [kind, options], "received_value": value}
        least, most = options.get("min"), options.get("max")
        if least is not None and value < least:
            self.errors.append(report("value_smaller_than_min", f"Value {value} smaller than min of {least}", name, **facts))
            return
        if most is not None and value > most:
            self.errors.append(report("value_bigger_than_max", f"Value {value} bigger than max of {most}", name, **facts))
            return
        if isinstance(kind, list) and value not in kind:
            shown = str(kind)
            if len(kind) > MOST_CHOICES_SHOWN:
                shown, facts["input_config"] = f"(list of length {len(kind)})", None
            self.errors.append(report("value_not_in_list", "Value not in list", f"{name}: '{value}' not in {shown}", **facts))

    async def run_validator(self, prompt_id: str) -> None:
        """The class's own validator, with links as None (contract: execution.md section 3.5)."""
        if self.node_class.validator is None or not (self._names or self._any_name):
            return
        found = collect_inputs(self.node_class, self.inputs, early_hidden(self.node_id))
        given = {name: values for name, values in found.values.items() if self._any_name or name in self._names}
        if "input_types" in self._names:
            given["input_types"] = [self.received]
        method = getattr(self.node_class.on_class(found.hidden), self.node_class.validator)
        caller = Caller(prompt_id, self.node_id, self.node_class.input_is_list)
        results = await caller.run(method, given)
        for name in given:
            for result in results:
                if result is True or isinstance(result, ExecutionBlocker):
                    continue
                details = name if result is False else f"{name} - {result}"
                self.errors.append(report("custom_validation_failed", "Custom validation failed for node", details, input_name=name))


def plain(kind: Any) -> Any:
    """The text of a type name; packs' str subclasses may claim to equal, print or hash as something else."""
    return str.__str__(kind) if isinstance(kind, str) else kind


def convert(value: Any, kind: Any) -> Any:
    """A literal as the declared type wants it. Raises TypeError, ValueError or OverflowError."""
    conversion = CONVERT.get(plain(kind)) if isinstance(kind, str) else None
    if conversion is None:
        return value
    converted = conversion(value)
    if isinstance(converted, float) and not math.isfinite(converted):
        raise ValueError("not a finite number")  # it could neither be compared with bounds nor be written as JSON
    return converted


def _parameters(node_class: NodeClass) -> tuple[frozenset[str], bool]:
    """Names of the validator's parameters (with `cls` for a class method), and whether it takes any keyword."""
    if node_class.validator is None:
        return frozenset(), False
    try:
        spec = inspect.getfullargspec(getattr(node_class.cls, node_class.validator))
    except TypeError:
        return frozenset(), False
    return frozenset(spec.args + spec.kwonlyargs), spec.varkw is not None


def links(inputs: Mapping[str, Any]) -> Sequence[tuple[str, list[Any]]]:
    """(input name, link) of every input that is a link."""
    return [(name, value) for name, value in inputs.items() if is_link(value)]
