"""Each row of the contract's validation tables (execution.md section 3)."""

from __future__ import annotations

import math
from typing import Any

import pytest

from comfy.errors import PromptInvalid
from comfy_execution.validation import validate_node_input
from tests.unit.execution import nodes
from tests.unit.execution.harness import node, validate


def rejected(prompt: Any, targets: Any = None, classes: Any = None) -> PromptInvalid:
    with pytest.raises(PromptInvalid) as caught:
        validate(prompt, targets, classes)
    assert caught.value.http_status == 400
    assert set(caught.value.error) == {"type", "message", "details", "extra_info"}
    return caught.value


def only_error(prompt: Any, node_id: str, classes: Any = None) -> dict[str, Any]:
    (error,) = rejected(prompt, classes=classes).node_errors[node_id]["errors"]
    assert set(error) == {"type", "message", "details", "extra_info"}
    return error


GOOD = {"1": node("Const", n=3), "2": node("Show", value=["1", 0])}


def test_a_good_prompt_passes_with_its_literals_converted_in_a_copy() -> None:
    prompt = {"1": {**node("Const", n="3", undeclared="kept"), "_meta": {"title": "x"}}, "2": node("Show", value=["1", 0])}
    valid = validate(prompt)
    assert valid.prompt["1"] == {"class_type": "Const", "inputs": {"n": 3, "undeclared": "kept"}, "_meta": {"title": "x"}}
    assert valid.outputs == ("2",)
    assert valid.node_errors == {}
    assert prompt["1"]["inputs"]["n"] == "3"


@pytest.mark.parametrize(
    ("prompt", "message", "details"),
    [
        (None, "the prompt is not an object", ""),
        ("text", "the prompt is not an object", ""),
        ([GOOD], "the prompt is not an object", ""),
        ({**GOOD, "7": 5}, "a node is not an object", "Node ID '#7'"),
        ({**GOOD, "7": None}, "a node is not an object", "Node ID '#7'"),
        ({**GOOD, "7": {"inputs": {}}}, "a node is missing the class_type property.", "Node ID '#7'"),
        ({**GOOD, "7": node("Nope")}, "node Nope does not exist.", "Node ID '#7'"),
        ({**GOOD, "7": {"class_type": ["Const"], "inputs": {}}}, "does not exist.", "Node ID '#7'"),
        ({**GOOD, "7": {"class_type": "Const", "inputs": []}}, "the inputs of a node are not an object", "Node ID '#7'"),
        ({**GOOD, 7: node("Const", n=1)}, "a node id is not a string", "Node ID '#7'"),
    ],
)
def test_a_malformed_prompt_names_the_node(prompt: Any, message: str, details: str) -> None:
    error = rejected(prompt)
    assert error.error["type"] == "invalid_prompt"
    assert error.error["message"].startswith("Cannot execute because ")
    assert message in error.error["message"]
    assert error.error["details"] == details
    assert error.error["extra_info"] == {}
    assert error.node_errors == {}


def test_values_nested_too_deep_are_told() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    assert rejected({"1": node("Show", value={"__value__": deep})}).error["type"] == "invalid_prompt"


@pytest.mark.parametrize(
    ("prompt", "targets"), [({}, None), ({"1": node("Const", n=1)}, None), (GOOD, []), (GOOD, ["1"]), (GOOD, ["9"]), (GOOD, [["2"]])]
)
def test_no_selected_output(prompt: Any, targets: Any) -> None:
    error = rejected(prompt, targets)
    assert error.error == {"type": "prompt_no_outputs", "message": "Prompt has no outputs", "details": "", "extra_info": {}}


@pytest.mark.parametrize("targets", [5, "2"])
def test_targets_must_be_a_list(targets: Any) -> None:
    assert rejected(GOOD, targets).error["type"] == "invalid_prompt"


def test_outputs_are_sorted_and_limited_to_the_targets() -> None:
    prompt = {"1": node("Const", n=1)} | {key: node("Show", value=["1", 0]) for key in ("b", "10", "9", "a")}
    assert validate(prompt).outputs == ("9", "10", "a", "b")
    assert validate(prompt, ["b", "10", "1"]).outputs == ("10", "b")


def test_a_required_input_is_missing() -> None:
    error = rejected({"2": node("Show")})
    assert error.error["type"] == "prompt_outputs_failed_validation"
    assert error.error["message"] == "Prompt outputs failed validation"
    assert error.error["details"] == "Required input is missing: value"
    assert error.node_errors == {
        "2": {
            "errors": [
                {
                    "type": "required_input_missing",
                    "message": "Required input is missing",
                    "details": "value",
                    "extra_info": {"input_name": "value"},
                }
            ],
            "dependent_outputs": ["2"],
            "class_type": "Show",
        }
    }


def test_an_upstream_error_is_not_in_the_details_and_names_its_outputs() -> None:
    error = rejected({"1": node("Const", n=-1), "2": node("Show", value=["1", 0]), "3": node("Show", value=["1", 0])})
    assert error.error["details"] == ""
    assert list(error.node_errors) == ["1"]
    assert error.node_errors["1"]["dependent_outputs"] == ["2", "3"]


def test_all_errors_of_a_node_are_collected() -> None:
    errors = rejected({"1": node("Add", a=["9"], b="x"), "2": node("Show", value=["1", 0])}).node_errors["1"]["errors"]
    assert [error["type"] for error in errors] == ["bad_linked_input", "invalid_input_type"]


def test_a_link_of_another_length_than_two() -> None:
    error = only_error({"1": node("Add", a=["9"], b=1), "2": node("Show", value=["1", 0])}, "1")
    assert error == {
        "type": "bad_linked_input",
        "message": "Bad linked input, must be a length-2 list of [node_id, slot_index]",
        "details": "a",
        "extra_info": {"input_name": "a", "input_config": ["INT", {"forceInput": True}], "received_value": ["9"]},
    }


def test_types_that_do_not_fit() -> None:
    prompt = {"1": node("LoopOpen", value=1), "2": node("Add", a=["1", 0], b=1), "3": node("Show", value=["2", 0])}
    error = only_error(prompt, "2")
    assert error == {
        "type": "return_type_mismatch",
        "message": "Return type mismatch between linked nodes",
        "details": "a, received_type(FLOW) mismatch input_type(INT)",
        "extra_info": {
            "input_name": "a",
            "input_config": ["INT", {"forceInput": True}],
            "received_type": "FLOW",
            "linked_node": ["1", 0],
        },
    }


def test_a_value_that_cannot_be_converted() -> None:
    error = only_error({"1": node("Const", n="abc"), "2": node("Show", value=["1", 0])}, "1")
    text = "invalid literal for int() with base 10: 'abc'"
    assert error == {
        "type": "invalid_input_type",
        "message": "Failed to convert an input value to a INT value",
        "details": f"n, abc, {text}",
        "extra_info": {
            "input_name": "n",
            "input_config": ["INT", {"min": 0, "max": 100}],
            "received_value": "abc",
            "exception_message": text,
        },
    }


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (-1, "value_smaller_than_min", "Value -1 smaller than min of 0"),
        (101, "value_bigger_than_max", "Value 101 bigger than max of 100"),
        ("101.0", "invalid_input_type", "Failed to convert an input value to a INT value"),
    ],
)
def test_bounds(value: Any, kind: str, message: str) -> None:
    error = only_error({"1": node("Const", n=value), "2": node("Show", value=["1", 0])}, "1")
    assert (error["type"], error["message"]) == (kind, message)
    if kind.startswith("value"):
        assert error["details"] == "n"
        assert error["extra_info"] == {"input_name": "n", "input_config": ["INT", {"min": 0, "max": 100}], "received_value": value}


class Typed:
    """An output with an input of every kind."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "run", True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "optional": {
                "i": ("INT",),
                "f": ("FLOAT", {"min": 0.0, "max": 1.0}),
                "s": ("STRING",),
                "b": ["BOOLEAN"],
                "u": ("INT,FLOAT",),
                "few": (["x", "y"], {"default": "x"}),
                "many": ([str(i) for i in range(21)],),
                "combo": ("COMBO", {"options": ["x"]}),
                "bare": "STRING",
            }
        }


TYPED = {"Typed": Typed}


@pytest.mark.parametrize(
    ("inputs", "converted"),
    [
        ({"i": 2.9}, 2),
        ({"i": "3"}, 3),
        ({"i": True}, 1),
        ({"f": "0.5"}, 0.5),
        ({"f": 1}, 1.0),
        ({"s": {"a": 1}}, "{'a': 1}"),
        ({"s": {"__value__": [1, 2, 3]}}, "[1, 2, 3]"),
        ({"b": "false"}, True),
        ({"u": "7"}, "7"),
        ({"combo": "not an option"}, "not an option"),
        ({"bare": 5}, "5"),
        ({"few": "y"}, "y"),
        ({"u": {"__value__": [1, 2, 3]}}, [1, 2, 3]),
        ({"u": {"__value__": ["9", 0]}}, {"__value__": ["9", 0]}),
    ],
)
def test_literals_are_converted_in_place(inputs: dict[str, Any], converted: Any) -> None:
    (name,) = inputs
    value = validate({"1": node("Typed", **inputs)}, classes=TYPED).prompt["1"]["inputs"][name]
    assert value == converted
    assert type(value) is type(converted)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "nan", "1e999", 10**400])
def test_floats_that_are_not_finite_are_told(value: Any) -> None:
    error = only_error({"1": node("Typed", f=value)}, "1", TYPED)
    assert error["type"] == "invalid_input_type"
    assert error["message"] == "Failed to convert an input value to a FLOAT value"


def test_a_whole_number_that_is_not_finite_is_told() -> None:
    assert only_error({"1": node("Typed", i=math.nan)}, "1", TYPED)["type"] == "invalid_input_type"


def test_a_value_that_is_no_choice() -> None:
    error = only_error({"1": node("Typed", few="z")}, "1", TYPED)
    assert error == {
        "type": "value_not_in_list",
        "message": "Value not in list",
        "details": "few: 'z' not in ['x', 'y']",
        "extra_info": {"input_name": "few", "input_config": [["x", "y"], {"default": "x"}], "received_value": "z"},
    }


def test_more_than_twenty_choices_are_only_counted() -> None:
    error = only_error({"1": node("Typed", many="z")}, "1", TYPED)
    assert error["details"] == "many: 'z' not in (list of length 21)"
    assert error["extra_info"] == {"input_name": "many", "input_config": None, "received_value": "z"}


class Judge:
    """Its validator's answer is what the test put here."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE = ("INT",), "run", True
    answer: Any = True
    seen: list[Any] = []

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"a": ("INT", {"max": 1}), "b": ("INT", {"max": 1})},
            "optional": {"link": ("IMAGE",)},
            "hidden": {"me": "UNIQUE_ID", "prompt": "PROMPT"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, a: Any, link: Any = "absent", me: Any = None, prompt: Any = None) -> Any:
        cls.seen.append((a, link, me, prompt))
        if isinstance(cls.answer, Exception):
            raise cls.answer
        return cls.answer


class JudgeTypes(Judge):
    @classmethod
    def VALIDATE_INPUTS(cls, input_types: Any) -> Any:  # type: ignore[override]
        cls.seen.append(input_types)
        return True


class JudgeAll(Judge):
    @classmethod
    async def VALIDATE_INPUTS(cls, **kwargs: Any) -> Any:  # type: ignore[override]
        cls.seen.append(kwargs)
        return cls.answer


class JudgeNothing(Judge):
    @classmethod
    def VALIDATE_INPUTS(cls) -> Any:  # type: ignore[override]
        cls.seen.append("called")
        return False


JUDGES = {**nodes.CLASSES, "Judge": Judge, "JudgeTypes": JudgeTypes, "JudgeAll": JudgeAll, "JudgeNothing": JudgeNothing}


@pytest.fixture(autouse=True)
def _reset() -> None:
    Judge.answer = True
    Judge.seen.clear()


def test_a_validator_sees_its_parameters_with_links_as_none() -> None:
    prompt = {"0": node("ToList", n=1, start=0), "1": node("JudgeTypes", a=1, b=1, link=["0", 0]), "2": node("Judge", a=5, b=1, x=3)}
    validate(prompt, classes=JUDGES)
    assert Judge.seen == [{"link": "INT"}, (5, "absent", "2", {})]  # the type check of the link is the validator's


@pytest.mark.parametrize(("answer", "details"), [(False, "a"), ("no good", "a - no good"), (None, "a - None")])
def test_a_validator_that_does_not_say_true(answer: Any, details: str) -> None:
    Judge.answer = answer
    prompt = {"1": node("Judge", a=5, b=1)}
    errors = rejected(prompt, classes=JUDGES).node_errors["1"]["errors"]
    assert errors[0] == {
        "type": "custom_validation_failed",
        "message": "Custom validation failed for node",
        "details": details,
        "extra_info": {"input_name": "a"},
    }
    assert [error["extra_info"]["input_name"] for error in errors] == ["a", "me", "prompt"]


def test_bounds_are_the_validators_business_for_the_inputs_that_it_takes() -> None:
    validate({"1": node("Judge", a=5, b=1)}, classes=JUDGES)
    validate({"1": node("JudgeAll", a=5, b=5)}, classes=JUDGES)
    assert only_error({"1": node("Judge", a=5, b=5)}, "1", JUDGES)["details"] == "b"


def test_an_asynchronous_validator_is_awaited_and_gets_everything_declared() -> None:
    Judge.answer = "bad"
    prompt = {"1": node("JudgeAll", a=5, b=5, undeclared=1)}
    assert {error["details"] for error in rejected(prompt, classes=JUDGES).node_errors["1"]["errors"]} == {
        f"{name} - bad" for name in ("a", "b", "me", "prompt")
    }


def test_a_class_method_without_parameters_fails_without_a_word() -> None:
    assert validate({"1": node("JudgeNothing", a=1, b=1)}, classes=JUDGES).outputs == ("1",)
    assert Judge.seen == ["called"]


def test_a_validator_that_raises_on_an_output_node() -> None:
    Judge.answer = RuntimeError("broken")
    error = only_error({"1": node("Judge", a=1, b=1)}, "1", JUDGES)
    assert (error["type"], error["message"], error["details"]) == (
        "exception_during_validation",
        "Exception when validating node",
        "broken",
    )
    assert set(error["extra_info"]) == {"exception_type", "traceback"}
    assert error["extra_info"]["exception_type"] == "RuntimeError"
    assert error["extra_info"]["traceback"]
    assert '"/' not in "".join(error["extra_info"]["traceback"])


def test_a_validator_that_raises_upstream() -> None:
    Judge.answer = RuntimeError("broken")
    error = only_error({"1": node("Judge", a=1, b=1), "2": node("Show", value=["1", 0])}, "1", JUDGES | {"Judge": Upstream})
    assert error["type"] == "exception_during_inner_validation"
    assert error["message"] == "Exception when validating inner node"
    extra = error["extra_info"]
    assert set(extra) == {"input_name", "input_config", "exception_message", "exception_type", "traceback", "linked_node"}
    assert (extra["input_name"], extra["linked_node"], extra["exception_message"]) == ("value", ["1", 0], "broken")


class Upstream(Judge):
    OUTPUT_NODE = False


@pytest.mark.parametrize(
    ("prompt", "details", "kind"),
    [
        ({"2": node("Show", value=["99", 0])}, "'99'", "KeyError"),
        ({"2": node("Show", value=[1, 0])}, "1", "KeyError"),
        ({"2": node("Show", value=[["1"], 0])}, "unhashable", "TypeError"),
        ({"1": node("Const", n=1), "2": node("Show", value=["1", 5])}, "tuple index out of range", "IndexError"),
        ({"1": node("Const", n=1), "2": node("Show", value=["1", -1])}, "tuple index out of range", "IndexError"),
        ({"1": node("Const", n=1), "2": node("Show", value=["1", 0.5])}, "slot index of the link", "TypeError"),
        ({"1": node("Const", n=1), "2": node("Show", value=["1", "0"])}, "slot index of the link", "TypeError"),
        ({"2": {"class_type": "Show"}}, "'inputs'", "KeyError"),
    ],
)
def test_a_link_to_nothing_is_an_exception_of_the_node(prompt: Any, details: str, kind: str) -> None:
    error = only_error(prompt, "2")
    assert error["type"] == "exception_during_validation"
    assert details in error["details"]
    assert error["extra_info"]["exception_type"] == kind


def test_one_bad_output_among_two_is_dropped() -> None:  # hard case 12
    valid = validate({**GOOD, "3": node("Show")})
    assert valid.outputs == ("2",)
    assert valid.node_errors["3"]["dependent_outputs"] == ["3"]


def test_a_node_that_nothing_needs_is_not_checked() -> None:
    assert validate({**GOOD, "7": node("Const", n="abc"), "8": {"class_type": "Const"}}).node_errors == {}


@pytest.mark.parametrize(
    ("received", "expected", "strict", "fits"),
    [
        ("INT", "INT", False, True),
        ("INT", "FLOAT", False, False),
        ("INT,FLOAT", "FLOAT, STRING", False, True),
        ("INT,FLOAT", "FLOAT, STRING", True, False),
        ("INT", "FLOAT,INT", True, True),
        ("*", "INT", False, False),
        (nodes.ANY, "INT", False, True),
        ("", "", False, True),
        ("", "INT", False, False),
        (["a"], ["a"], False, True),
        (["a"], ["b"], False, False),
        (["a"], "COMBO", False, False),
    ],
)
def test_type_compatibility(received: Any, expected: Any, strict: bool, fits: bool) -> None:
    assert validate_node_input(received, expected, strict) is fits
