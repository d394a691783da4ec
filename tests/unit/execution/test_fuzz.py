"""Any JSON at all: validation answers with PromptInvalid or a prompt that runs, and the executor always ends the job."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from comfy.errors import PromptInvalid
from comfy_execution.job import ENDED
from tests.unit.execution.harness import Bench, validate

IDS = st.sampled_from(["1", "2", "3", "4", "x"])
SCALARS = st.none() | st.booleans() | st.integers(-5, 200) | st.floats() | st.text(max_size=3)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3), max_leaves=5
)
LINKS = st.tuples(IDS, st.integers(-1, 2)).map(list)
NAMES = st.sampled_from(["n", "a", "b", "value", "second", "message", "start", "values", "extra", "flow", "times"])
KINDS = st.sampled_from(
    ["Const", "Add", "Show", "ToList", "SumList", "Kwargs", "Switch", "LazyInTurn", "Block", "Fail", "Hidden", "Counter", "Expand", "V3"]
)
NODES = st.fixed_dictionaries({"class_type": KINDS, "inputs": st.dictionaries(NAMES, LINKS | LINKS | JSON, max_size=5)})
PROMPTS = st.dictionaries(IDS, NODES | NODES | NODES | JSON, max_size=5)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(prompt=PROMPTS | JSON, targets=st.none() | st.lists(IDS, max_size=3) | JSON)
def test_any_json_is_a_valid_prompt_or_told_why_not(prompt: Any, targets: Any) -> None:
    sent = json.dumps(prompt)
    refused: PromptInvalid | None = None
    try:
        valid = validate(prompt, targets)
    except PromptInvalid as error:
        refused = error
    if refused is not None:
        assert refused.error["type"]
        assert refused.error["message"]
    else:
        assert valid.outputs
        assert set(valid.outputs) <= set(valid.prompt)
        ran = Bench().run(valid.prompt, *valid.outputs)
        assert ran.result.state in ENDED
        assert ran.short[0] == "execution_start"
        assert ran.result.messages[-1][0] in ("execution_success", "execution_error")
    assert json.dumps(prompt) == sent


@settings(max_examples=40, deadline=None, derandomize=True)
@given(prompt=PROMPTS, outputs=st.lists(IDS, min_size=1, max_size=3))
def test_an_executor_ends_every_job_even_if_nobody_validated_it(prompt: Any, outputs: list[str]) -> None:
    bench = Bench()
    ran = bench.run(prompt, *outputs)
    assert ran.result.state in ENDED
    assert ran.result.messages[-1][0] in ("execution_success", "execution_error")
    with contextlib.suppress(ValueError):  # NaN is no JSON; the rest of what is published is
        json.dumps([event.data for event in ran.events], allow_nan=False)
    assert bench.run({"1": {"class_type": "Show", "inputs": {"value": 1}}}).result.outputs == {"1": {"text": [1]}}
