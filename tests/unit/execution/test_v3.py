"""Nodes of the V3 library as the executor runs them (custom-nodes.md section 4)."""

from __future__ import annotations

from typing import Any

import pytest

from comfy.errors import PromptInvalid
from comfy.nodes.v3 import io
from comfy_execution.graph_utils import GraphBuilder
from comfy_execution.job import JobState
from tests.unit.execution import nodes
from tests.unit.execution.harness import Bench, node, texts, validate


class Whole(io.ComfyNode):
    """Every hook that a V3 node may have."""

    seen: dict[str, Any] = {}

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Whole",
            inputs=[io.Int.Input("n", min=0, max=9), io.Int.Input("lazy", lazy=True, optional=True)],
            outputs=[io.Int.Output()],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.auth_token_comfy_org],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, n: int) -> bool | str:
        cls.seen["validate"] = (cls.hidden.unique_id, cls.hidden.prompt, cls.hidden.dynprompt)
        return True if n != 5 else "five"

    @classmethod
    def fingerprint_inputs(cls, n: int, lazy: Any = None) -> int:
        cls.seen["fingerprint"] = (n, lazy, cls.hidden.unique_id)
        return n

    @classmethod
    def check_lazy_status(cls, n: int, lazy: Any = None) -> list[str]:
        return ["lazy"] if n == 1 and lazy is None else []

    @classmethod
    def execute(cls, n: int, lazy: Any = None) -> io.NodeOutput:
        cls.seen["execute"] = (cls.hidden.unique_id, sorted(cls.hidden.prompt), cls.hidden.auth_token_comfy_org)
        if n == 2:
            cls.state = n
        if n == 3:
            return io.NodeOutput(block_execution="three")
        return io.NodeOutput(n, ui={"text": [lazy]})


class Plain(io.ComfyNode):
    """No hooks: the base class's placeholders do not count."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="Plain", inputs=[io.Int.Input("n", lazy=True)], outputs=[io.Int.Output()], enable_expand=True)

    @classmethod
    async def execute(cls, n: Any = None) -> io.NodeOutput:
        graph = GraphBuilder()
        inner = graph.node("Const", n=0 if n is None else 1)
        return io.NodeOutput(inner.out(0), expand=graph.finalize())


V3 = {**nodes.CLASSES, "Whole": Whole, "Plain": Plain}


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.executor.registry.add({"Whole": Whole, "Plain": Plain}, module="tests")
    return made


def test_hidden_values_and_hooks(bench: Bench) -> None:
    prompt = {"1": node("Const", n=7), "2": node("Whole", n=1, lazy=["1", 0])}
    validate(prompt, classes=V3)
    ran = bench.run(prompt, secrets={"auth_token_comfy_org": "t0ken"})
    assert texts(ran) == {"2": [7]}
    assert Whole.seen == {
        "validate": ("2", {}, None),
        "fingerprint": (1, None, None),
        "execute": ("2", ["1", "2"], "t0ken"),
    }
    assert bench.run(prompt).short[1] == "execution_cached ['1', '2']"


def test_a_lazy_input_that_is_not_asked_for_does_not_run(bench: Bench) -> None:
    assert texts(bench.run({"1": node("Const", n=7), "2": node("Whole", n=4, lazy=["1", 0])})) == {"2": [None]}
    assert nodes.Const.made == []


def test_the_validators_text_is_told() -> None:
    with pytest.raises(PromptInvalid) as caught:
        validate({"1": node("Whole", n=5)}, classes=V3)
    assert caught.value.node_errors["1"]["errors"][0]["details"] == "n - five"


def test_a_class_that_cannot_describe_itself_is_told() -> None:
    class Broken(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            raise ValueError("no schema today")

    with pytest.raises(PromptInvalid) as caught:
        validate({"1": node("Broken", n=5)}, classes={"Broken": Broken})
    assert caught.value.error["message"].endswith("cannot describe itself: no schema today")
    assert caught.value.error["details"] == "Node ID '#1'"


def test_a_class_cannot_keep_state(bench: Bench) -> None:
    ran = bench.run({"1": node("Whole", n=2)})
    assert (ran.result.state, ran.error["exception_type"]) == (JobState.FAILED, "AttributeError")


def test_a_blocker(bench: Bench) -> None:
    ran = bench.run({"1": node("Whole", n=3), "2": node("Show", value=["1", 0])})
    assert ran.error["exception_message"] == "Execution Blocked: three"
    assert ran.result.state is JobState.SUCCEEDED


def test_an_asynchronous_node_expands_and_its_lazy_input_stays_away(bench: Bench) -> None:
    ran = bench.run({"1": node("Const", n=7), "2": node("Plain", n=["1", 0]), "3": node("Show", value=["2", 0])})
    assert texts(ran) == {"3": [0]}
    assert nodes.Const.made == ["2.0.0.1"]
