"""The progress registry as packs and the API use it (execution.md section 18)."""

from __future__ import annotations

import contextvars
import threading
from typing import Any

import pytest

import comfy.control
from comfy_execution.graph import DynamicPrompt, NodeNotFoundError, get_input_info
from comfy_execution.progress import (
    ProgressHandler,
    add_progress_handler,
    encode_preview,
    get_progress_state,
    job_progress,
    reset_progress_state,
)
from comfy_execution.utils import CurrentNodeContext, get_executing_context
from tests.unit.execution import nodes
from tests.unit.execution.harness import Bench, node


class Recorder(ProgressHandler):
    def __init__(self) -> None:
        super().__init__("recorder")
        self.seen: list[Any] = []

    def set_registry(self, registry: Any) -> None:
        self.seen.append(("registry", registry.prompt_id))

    def start_handler(self, node_id: str, state: Any, prompt_id: str) -> None:
        self.seen.append(("start", node_id, state["value"], prompt_id))

    def update_handler(self, node_id: str, value: float, max_value: float, state: Any, prompt_id: str, image: Any = None) -> None:
        self.seen.append(("update", node_id, value, max_value, image))

    def finish_handler(self, node_id: str, state: Any, prompt_id: str) -> None:
        self.seen.append(("finish", node_id, state["value"]))

    def reset(self) -> None:
        self.seen.append("reset")


def test_a_handler_is_told_until_it_is_disabled() -> None:
    recorder = Recorder()
    with job_progress("p", DynamicPrompt({})) as registry:
        add_progress_handler(recorder)
        registry.start_progress("1")
        registry.update_progress("1", 2, 5, image="x")
        registry.disable_handler("recorder")
        registry.update_progress("1", 3, 5)
        registry.enable_handler("recorder")
        registry.finish_progress("1")
        registry.unregister_handler("recorder")
        registry.finish_progress("1")
    assert recorder.seen == [("registry", "p"), ("start", "1", 0.0, "p"), ("update", "1", 2, 5, "x"), ("finish", "1", 5)]


def test_the_registry_belongs_to_the_context() -> None:
    outside = get_progress_state()
    recorder = Recorder()
    with job_progress("p", DynamicPrompt({})) as registry:
        assert get_progress_state() is registry
        add_progress_handler(recorder)
        seen: list[Any] = []
        bare = threading.Thread(target=lambda: seen.append(get_progress_state()))
        copied = threading.Thread(target=contextvars.copy_context().run, args=(lambda: seen.append(get_progress_state()),))
        for thread in (bare, copied):
            thread.start()
            thread.join()
        assert seen == [outside, registry]
        reset_progress_state("q", DynamicPrompt({}))
        assert get_progress_state().prompt_id == "q"
    assert recorder.seen[-1] == "reset"
    assert get_progress_state() is outside


def test_a_node_may_report_for_another_and_a_helper_thread_for_its_node() -> None:
    class Reports(nodes.Show):
        def show(self, value: Any) -> Any:
            control = comfy.control.current()
            control.progress(1, 4, None, "other")
            work = contextvars.copy_context().run
            thread = threading.Thread(target=work, args=(control.progress, 2, 4, None, None))
            thread.start()
            thread.join()
            bare = threading.Thread(target=control.progress, args=(3, 4, None, None))  # without context: the node that runs now
            bare.start()
            bare.join()
            return super().show(value)

    bench = Bench()
    bench.executor.registry.add({"Reports": Reports}, module="tests")
    ran = bench.run({"1": node("Reports", value=1)})
    assert [(data["node"], data["value"]) for data in ran.of("progress")] == [("other", 1), ("1", 2), ("1", 3)]


def test_a_preview_that_cannot_be_encoded_costs_nothing_but_itself() -> None:
    class Bad(nodes.Show):
        def show(self, value: Any) -> Any:
            comfy.control.current().progress(1, 1, ("JPEG", "no image", None), None)
            return super().show(value)

    bench = Bench()
    bench.executor.registry.add({"Bad": Bad}, module="tests")
    ran = bench.run({"1": node("Bad", value=1)})
    assert ran.result.outputs == {"1": {"text": [1]}}
    assert ran.short[4:6] == ["PS{1:r}", "progress 1 1/1"]


@pytest.mark.parametrize(
    ("size", "longest", "fitted"), [((640, 320), 512, (512, 256)), ((10, 20), 40, (20, 40)), ((10, 20), None, (10, 20))]
)
def test_previews_fit_their_square(size: tuple[int, int], longest: int | None, fitted: tuple[int, int]) -> None:
    import io

    from PIL import Image

    for kind, mime in (("JPEG", "image/jpeg"), ("PNG", "image/png")):
        data, told = encode_preview((kind, Image.new("RGBA", size), longest))
        image = Image.open(io.BytesIO(data))
        assert (image.size, image.format, told) == (fitted, kind, mime)


def test_the_executing_context() -> None:
    assert get_executing_context() is None
    with CurrentNodeContext("p", "1", 2) as context:
        assert get_executing_context() == context == ("p", "1", 2)
    assert get_executing_context() is None


def test_the_dynamic_prompt_knows_the_family_of_its_nodes() -> None:
    graph = DynamicPrompt({"1": node("A"), "9": node("B")})
    graph.add_ephemeral_node("1.a", node("C"), "1", "1")
    graph.add_ephemeral_node("1.a.b", node("D"), "1.a", "1.a")
    graph.add_ephemeral_node("1.c", node("E"), "1", "9")
    assert [graph.get_real_node_id(i) for i in ("1", "1.a", "1.a.b", "1.c")] == ["1"] * 4
    assert [graph.get_display_node_id(i) for i in ("1", "1.a", "1.a.b", "1.c")] == ["1", "1", "1", "9"]
    assert [graph.get_parent_node_id(i) for i in ("1", "1.a", "1.a.b")] == [None, "1", "1.a"]
    assert graph.all_node_ids() == {"1", "9", "1.a", "1.a.b", "1.c"}
    assert graph.has_node("1.a.b")
    assert graph.get_node("1.a") == node("C")
    with pytest.raises(NodeNotFoundError):
        graph.get_node("2")


def test_input_info() -> None:
    assert get_input_info(nodes.Add, "a") == ("INT", "required", {"forceInput": True})
    assert get_input_info(nodes.Hidden, "me")[:2] == ("UNIQUE_ID", "hidden")
    assert get_input_info(nodes.Add, "z") == (None, None, {})

    class Anything(dict[str, Any]):
        def __contains__(self, key: object) -> bool:
            return True

        def __getitem__(self, key: str) -> Any:
            return ("IMAGE", {"key": key})

    assert get_input_info(None, "image_7", {"required": {}, "optional": Anything()}) == ("IMAGE", "optional", {"key": "image_7"})
