"""Nodes that become graphs (execution.md section 12)."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_execution.graph_utils import GraphBuilder, add_graph_prefix, is_link
from comfy_execution.job import JobState
from tests.unit.execution import nodes
from tests.unit.execution.harness import Bench, node, texts


def test_an_output_inside_shows_under_its_own_id_with_its_family() -> None:  # hard case 6
    ran = Bench().run({"1": node("Expand", value=5, n=3), "2": node("Show", value=["1", 0])})
    assert texts(ran) == {"1": ["expanding"], "2": [8], "1.0.0.3": [8]}
    assert ran.result.meta["1.0.0.3"] == {"node_id": "1.0.0.3", "display_node": "1", "parent_node": "1", "real_node_id": "1"}


def test_the_error_of_an_inner_node_is_on_the_real_node(monkeypatch: pytest.MonkeyPatch) -> None:  # hard case 7
    monkeypatch.setattr(nodes.ExpandBad, "value", {"result": (["x", 0],), "expand": {"x": node("Fail", value=1)}})
    ran = Bench().run({"7": node("ExpandBad", n=1)})
    assert (ran.error["node_id"], ran.error["node_type"]) == ("7", "ExpandBad")
    assert ran.error["current_inputs"] == {"value": [1]}
    assert ran.error["current_outputs"] == ["7", "x"]


@pytest.mark.parametrize("policy", ["classic", "lru"])
def test_the_same_expansion_again_is_cached(policy: str) -> None:  # hard case 8
    bench = Bench(policy=policy, lru=50)
    prompt = {"1": node("Expand", value=5, n=3), "2": node("Show", value=["1", 0])}
    bench.run(prompt)
    ran = bench.run(prompt)
    assert nodes.Expand.runs == 1
    assert ran.short[1] == "execution_cached ['1', '2']"
    assert texts(ran).items() >= {"2": [8]}.items()


def test_children_of_a_cached_expansion_stay_in_the_history() -> None:
    bench = Bench()
    prompt = {"1": node("Expand", value=5, n=3), "2": node("Show", value=["1", 0])}
    first = bench.run(prompt)
    again = bench.run(prompt)
    assert again.result.outputs == first.result.outputs
    assert again.result.meta == first.result.meta


def test_a_child_whose_inputs_stayed_is_cached_when_the_parent_runs_again() -> None:
    bench = Bench()
    bench.run({"1": node("Expand", value=5, n=3), "2": node("Show", value=["1", 0])})
    ran = bench.run({"1": node("Expand", value=6, n=3), "2": node("Show", value=["1", 0])})
    assert nodes.Expand.runs == 2
    assert nodes.Const.made == ["1.0.0.1"]
    assert texts(ran)["2"] == [9]


@pytest.mark.parametrize("policy", ["classic", "lru", "none"])
def test_a_loop_with_changing_constants(policy: str) -> None:  # hard case 9
    prompt = {
        "1": node("LoopOpen", value=1, count=0),
        "2": node("Add", a=["1", 1], b=["5", 0]),
        "3": node("LoopClose", flow=["1", 0], value=["2", 0], times=6),
        "4": node("Show", value=["3", 0]),
        "5": node("Const", n=10),
    }
    bench = Bench(policy=policy, lru=3)
    ran = bench.run(prompt)
    assert texts(ran) == {"4": [61]}
    inner = {data["display_node"] for data in ran.of("executing")}
    assert inner == {"1", "2", "3", "4", "5"}
    nested = "3" + ".0.0.Recurse" * 5
    assert any(data["node"] == nested for data in ran.of("executing"))
    assert texts(bench.run(prompt)) == {"4": [61]}


def test_mixed_literal_and_expanded_results_keep_their_order() -> None:  # hard case 10
    prompt = {
        "0": node("ToList", n=4, start=-2),
        "1": node("Expand", value=["0", 0], n=3),
        "2": node("Show", value=["1", 0]),
    }
    ran = Bench().run(prompt)
    assert texts(ran)["2"] == [-2, -1, 3, 4]
    assert {data["node"] for data in ran.of("executing")} >= {"1.2.0.1", "1.2.0.2", "1.3.0.2"}


def test_a_linked_list_shifts_the_slots_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = {"l": node("ToList", n=2, start=7)}
    monkeypatch.setattr(nodes.ExpandBad, "value", {"result": (["l", 0], 9), "expand": graph})
    monkeypatch.setattr(nodes.ExpandBad, "RETURN_TYPES", ("INT",) * 3)
    prompt = {"1": node("ExpandBad", n=1)} | {str(i + 2): node("Show", value=["1", i]) for i in range(3)}
    assert texts(Bench().run(prompt)) == {"2": [7], "3": [8], "4": [9]}


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"result": (1,), "expand": {"1": node("Const", n=1)}}, "execution.DuplicateNodeError"),
        ({"result": (1,), "expand": {"x": node("Nope")}}, "comfy_execution.node_class.UnknownNodeClass"),
        ({"result": (1,), "expand": {"x": 5}}, "comfy_execution.expansion.ExpansionInvalid"),
        ({"result": (1,), "expand": [1]}, "comfy_execution.expansion.ExpansionInvalid"),
        ({"result": (["x", 0],), "expand": {}}, "comfy_execution.graph.NodeNotFoundError"),
        ({"expand": {}}, "TypeError"),
    ],
)
def test_a_bad_expansion_is_the_nodes_error(monkeypatch: pytest.MonkeyPatch, value: Any, kind: str) -> None:
    monkeypatch.setattr(nodes.ExpandBad, "value", value)
    bench = Bench()
    ran = bench.run({"1": node("ExpandBad", n=1)})
    assert (ran.error["node_id"], ran.error["exception_type"]) == ("1", kind)
    assert bench.run({"2": node("Show", value=1)}).result.state is JobState.SUCCEEDED


def test_a_cycle_inside_an_expansion_is_shown_at_the_expanding_node(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = {"x": node("Add", a=["y", 0], b=1), "y": node("Add", a=["x", 0], b=1)}
    monkeypatch.setattr(nodes.ExpandBad, "value", {"result": (["x", 0],), "expand": graph})
    ran = Bench().run({"1": node("ExpandBad", n=1)})
    assert (ran.error["node_id"], ran.error["node_type"], ran.error["exception_message"]) == (
        "1",
        "ExpandBad",
        "Dependency cycle detected",
    )


def test_the_graph_builder() -> None:
    graph = GraphBuilder(prefix="p.")
    first = graph.node("A", x=1)
    named = graph.node("B", "named", y=first.out(0))
    assert graph.node("B", "named") is named
    assert graph.lookup_node("named") is named
    assert graph.lookup_node("nobody") is None
    named.set_input("z", 5)
    named.set_input("y2", first.out(1))
    assert named.get_input("z") == 5
    named.set_input("z", None)
    named.set_override_display_id("7")
    graph.replace_node_output("1", 0, ["q", 3])
    graph.replace_node_output("1", 1, None)
    assert graph.finalize() == {
        "p.1": {"class_type": "A", "inputs": {"x": 1}},
        "p.named": {"class_type": "B", "inputs": {"y": ["q", 3]}, "override_display_id": "7"},
    }
    graph.remove_node("1")
    assert list(graph.finalize()) == ["p.named"]


def test_default_prefixes_count_the_builders_of_a_call() -> None:
    GraphBuilder.set_default_prefix("7", 2, 0)
    assert [GraphBuilder().prefix, GraphBuilder().prefix] == ["7.2.0.", "7.2.1."]
    assert GraphBuilder.alloc_prefix("9", 0, 5) == "9.0.5."


def test_links_and_prefixes() -> None:
    assert [is_link(value) for value in (["1", 0], ["1", 0.5], [1, 0], ["1"], ("1", 0), ["1", "0"])] == [True, True] + [False] * 4
    graph = {"a": node("A", x=["b", 0], y=["other", 0]), "b": node("B")}
    renamed, outputs = add_graph_prefix(graph, (["a", 0], 5), "p.")
    assert renamed == {"p.a": node("A", x=["p.b", 0], y=["other", 0]), "p.b": node("B")}
    assert outputs == (["p.a", 0], 5)
