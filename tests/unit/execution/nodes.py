"""Small node classes that show one behaviour each. Values are numbers; `calls` of the running test counts what ran."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import numpy as np
import torch

import comfy.control
from comfy_execution.graph import ExecutionBlocker
from comfy_execution.graph_utils import GraphBuilder, is_link
from comfy_execution.utils import get_executing_context

ANY = type("Any", (str,), {"__ne__": lambda self, other: False, "__eq__": lambda self, other: True, "__hash__": str.__hash__})("*")


class Const:
    """A number, and how often it was made."""

    RETURN_TYPES, FUNCTION = ("INT",), "make"
    made: list[str] = []

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"n": ("INT", {"min": 0, "max": 100})}, "hidden": {"unknown": "INT"}}

    def make(self, n: int) -> tuple[int]:
        type(self).made.append(get_executing_context().node_id)
        return (n,)


class Add:
    RETURN_TYPES, FUNCTION = ("INT",), "add"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"a": ("INT", {"forceInput": True}), "b": ("INT", {})}}

    def add(self, a: int, b: int) -> tuple[int]:
        return (a + b,)


class Show:
    """Output: shows its input as text and passes it on."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE = ("INT",), "show", True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": (ANY, {})}}

    def show(self, value: Any) -> dict[str, Any]:
        return {"ui": {"text": [value]}, "result": (value,)}


class Silent(Show):
    """Output without UI."""

    def show(self, value: Any) -> tuple[Any]:
        return (value,)


class ToList:
    RETURN_TYPES, FUNCTION, OUTPUT_IS_LIST = ("INT", "INT"), "make", (True, False)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"n": ("INT", {}), "start": ("INT", {})}}

    def make(self, n: int, start: int) -> tuple[list[int], int]:
        return (list(range(start, start + n)), n)


class SumList:
    """Takes whole lists."""

    RETURN_TYPES, FUNCTION, INPUT_IS_LIST = ("INT",), "total", True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"values": ("INT", {}), "extra": ("INT", {})}}

    def total(self, values: list[int], extra: list[int]) -> tuple[int]:
        return (sum(values) * 10 + len(extra),)


class Kwargs:
    """Shows the undeclared inputs that reach it."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "show", True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}

    def show(self, **kwargs: Any) -> dict[str, Any]:
        return {"ui": {"got": [sorted(kwargs.items())]}}


class Switch:
    """Lazy: evaluates only the branch that it takes."""

    RETURN_TYPES, FUNCTION = ("INT",), "choose"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        lazy = ("INT", {"lazy": True})
        return {"required": {"second": ("BOOLEAN", {}), "a": lazy, "b": lazy}}

    def check_lazy_status(self, second: bool, a: Any = None, b: Any = None) -> list[Any]:
        return ["b" if second else "a", 7]

    def choose(self, second: bool, a: Any = None, b: Any = None) -> tuple[Any]:
        return (b if second else a,)


class LazyInTurn(Switch):
    """Asks for a, then for b."""

    def check_lazy_status(self, second: bool, a: Any = None, b: Any = None) -> list[str]:
        return ["a"] if a is None else ["a", "b", "second"] if b is None else []

    def choose(self, second: bool, a: Any = None, b: Any = None) -> tuple[Any]:
        return (a * 10 + b,)


class LazyWrong(Switch):
    """Asks for an input that nobody gave."""

    def check_lazy_status(self, **kwargs: Any) -> list[str]:
        return ["nothing"]


class NeverLazy:
    """Has a lazy input and no way to ask for it."""

    RETURN_TYPES, FUNCTION = ("INT",), "choose"
    INPUT_TYPES = Switch.INPUT_TYPES

    def choose(self, second: bool, a: Any = None, b: Any = None) -> tuple[int]:
        return (1 if a is None and b is None else 0,)


class Block:
    """Blocks when its input is even."""

    RETURN_TYPES, FUNCTION = ("INT", "INT"), "block"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {}), "message": ("STRING", {})}}

    def block(self, value: int, message: str) -> Any:
        return (value, value) if value % 2 else ExecutionBlocker(message or None)


class Fail:
    RETURN_TYPES, FUNCTION, OUTPUT_NODE = ("INT",), "fail", True
    error: Any = ValueError

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": (ANY, {})}, "optional": {"text": ("STRING", {})}}

    def fail(self, value: Any, text: str = "failed") -> Any:
        raise type(self).error(text)


class Returns:
    """Gives back whatever the test put here."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE = ("INT", "INT"), "give", True
    value: Any = None

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"key": ("INT", {})}}

    def give(self, key: int) -> Any:
        return type(self).value


class Hidden:
    """Shows its hidden inputs."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "show", True
    changed: list[Any] = []

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"value": (ANY, {})},
            "hidden": {
                "me": "UNIQUE_ID",
                "prompt": "PROMPT",
                "graph": "DYNPROMPT",
                "info": "EXTRA_PNGINFO",
                "token": "AUTH_TOKEN_COMFY_ORG",
                "other": "PROMPT_ID",
            },
        }

    @classmethod
    def IS_CHANGED(cls, value: Any, me: str, prompt: Any, graph: Any, info: Any, token: Any) -> str:
        cls.changed.append((value, me, prompt, graph, info, token))
        return "same"

    def show(self, value: Any, me: str, prompt: Any, graph: Any, info: Any, token: Any) -> dict[str, Any]:
        return {"ui": {"got": [me, sorted(prompt), graph.has_node(me), info, token]}}


class Changed:
    """Its change value is what the test put here."""

    RETURN_TYPES, FUNCTION = ("INT",), "make"
    change: Any = 1
    runs = 0

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"n": ("INT", {})}}

    @classmethod
    def IS_CHANGED(cls, n: Any) -> Any:
        if isinstance(cls.change, Exception):
            raise cls.change
        return cls.change

    def make(self, n: int) -> tuple[int]:
        type(self).runs += 1
        return (n,)


class Counter:
    """Counts its own calls on the instance."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE, NOT_IDEMPOTENT = (), "count", True, True

    def __init__(self) -> None:
        self.calls = 0

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"n": ("INT", {})}}

    def count(self, n: int) -> dict[str, Any]:
        self.calls += 1
        return {"ui": {"calls": [self.calls]}}


class Expand:
    """Becomes Const(n) + value, and an output node that shows it."""

    RETURN_TYPES, FUNCTION = ("INT",), "expand"
    runs = 0

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {}), "n": ("INT", {})}}

    def expand(self, value: int, n: int) -> dict[str, Any]:
        type(self).runs += 1
        if value < 0:
            return {"result": (value,)}
        graph = GraphBuilder()
        added = graph.node("Add", a=graph.node("Const", n=n).out(0), b=value)
        graph.node("Show", value=added.out(0))
        return {"result": (added.out(0),), "expand": graph.finalize(), "ui": {"text": ["expanding"]}}


class ExpandBad:
    """Expands into what the test put here."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE = ("INT",), "expand", True
    value: Any = None

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"n": ("INT", {})}}

    def expand(self, n: int) -> Any:
        return type(self).value


class LoopOpen:
    RETURN_TYPES, FUNCTION = ("FLOW", "INT"), "open"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {})}, "optional": {"count": ("INT", {})}}

    def open(self, value: int, count: int = 0) -> tuple[str, int]:
        return ("flow", value)


class LoopClose:
    """Repeats the nodes between its open node and itself while `times` is above 1."""

    RETURN_TYPES, FUNCTION = ("INT",), "close"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"flow": ("FLOW", {"rawLink": True}), "value": ("INT", {}), "times": ("INT", {})},
            "hidden": {"graph": "DYNPROMPT", "me": "UNIQUE_ID"},
        }

    def close(self, flow: Any, value: int, times: int, graph: Any, me: str) -> Any:
        if times <= 1:
            return (value,)
        opened = flow[0]
        body = self._between(graph, opened, me)
        builder = GraphBuilder()
        for node_id in body:
            original = graph.get_node(node_id)
            copied = builder.node(original["class_type"], "Recurse" if node_id == me else node_id)
            copied.set_override_display_id(graph.get_display_node_id(node_id))
        for node_id in body:
            copied = builder.lookup_node("Recurse" if node_id == me else node_id)
            for name, given in graph.get_node(node_id)["inputs"].items():
                inside = is_link(given) and given[0] in body
                copied.set_input(name, builder.lookup_node(given[0]).out(given[1]) if inside else given)
        builder.lookup_node(opened).set_input("value", value)
        recurse = builder.lookup_node("Recurse")
        recurse.set_input("times", times - 1)
        return {"result": (recurse.out(0),), "expand": builder.finalize()}

    @staticmethod
    def _between(graph: Any, opened: str, me: str) -> list[str]:
        def reaches(node_id: str) -> bool:
            links = [value[0] for value in graph.get_node(node_id)["inputs"].values() if is_link(value)]
            return node_id == opened or any(reaches(source) for source in links)

        found, stack = [me], [me]
        while stack:
            for value in graph.get_node(stack.pop())["inputs"].values():
                if is_link(value) and value[0] not in found and reaches(value[0]):
                    found.append(value[0])
                    stack.append(value[0])
        return found


class Steps:
    """Reports progress, with previews when asked; stops its own job before a step when asked."""

    RETURN_TYPES, FUNCTION = ("INT",), "work"
    done: list[int] = []

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"steps": ("INT", {}), "stop_at": ("INT", {}), "preview": ("BOOLEAN", {})}}

    def work(self, steps: int, stop_at: int, preview: bool) -> tuple[int]:
        from PIL import Image

        control = comfy.control.current()
        for step in range(1, steps + 1):
            if step == stop_at:
                control.stop.set()
            type(self).done.append(step)
            image = ("JPEG", Image.new("RGB", (64, 32)), 16) if preview else None
            control.progress(step, steps, image, None)
        return (steps,)


class Later:
    """Asynchronous: waits for its gate, or only gives the loop a turn."""

    RETURN_TYPES, FUNCTION = ("INT",), "later"
    gates: dict[str, asyncio.Event] = {}
    log: list[str] = []

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {}), "waits_for": ("STRING", {}), "opens": ("STRING", {})}}

    async def later(self, value: int, waits_for: str, opens: str) -> tuple[int]:
        context = get_executing_context()
        type(self).log.append(f"start {context.node_id}")
        if opens:
            self.gates.setdefault(opens, asyncio.Event()).set()
        if waits_for:
            await self.gates.setdefault(waits_for, asyncio.Event()).wait()
        assert get_executing_context() == context
        type(self).log.append(f"end {context.node_id}")
        if value < 0:
            raise ValueError("later failed")
        return (value,)


class Draws:
    """A pack's node that seeds and draws from the process-wide generators."""

    RETURN_TYPES, FUNCTION, USES_GLOBAL_RNG, OUTPUT_NODE = (), "draw", True, True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"seed": ("INT", {}), "again": ("BOOLEAN", {})}}

    def draw(self, seed: int, again: bool) -> dict[str, Any]:
        if not again:  # the second node goes on where the first one left off
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
        return {"ui": {"drawn": [random.random(), float(np.random.rand()), float(torch.rand(1))]}}


class DrawsLater(Draws):
    async def draw(self, seed: int, again: bool) -> dict[str, Any]:  # type: ignore[override]
        random.seed(seed)
        drawn = []
        for _ in range(5):
            drawn.append(random.random())
            await asyncio.sleep(0)
        return {"ui": {"drawn": drawn}}


class _V3Base:
    """What a V3 library's base class looks like to the executor."""

    @classmethod
    def validate_inputs(cls, **kwargs: Any) -> Any:
        raise AssertionError("the placeholder is never called")

    fingerprint_inputs = check_lazy_status = validate_inputs

    @classmethod
    def EXECUTE_NORMALIZED(cls, **kwargs: Any) -> Any:
        return cls.execute(**kwargs)


class NodeOutput:
    def __init__(self, *args: Any, ui: Any = None, expand: Any = None, block_execution: str | None = None) -> None:
        self.args, self.ui, self.expand, self.block_execution = args, ui, expand, block_execution
        self.result = args or None


class _Ui:
    def as_dict(self) -> dict[str, Any]:
        return {"text": ["from an object"]}


class V3(_V3Base):
    FUNCTION, RETURN_TYPES, OUTPUT_NODE = "EXECUTE_NORMALIZED", ("INT",), True

    @classmethod
    def define_schema(cls) -> None:
        return None

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"n": ("INT", {})}, "hidden": {"unique_id": ("UNIQUE_ID",)}}

    @classmethod
    def execute(cls, n: int) -> NodeOutput:
        assert cls.hidden.unique_id is not None
        assert cls.hidden.prompt is None
        if n == 0:
            return NodeOutput(block_execution="zero")
        if n == 1:
            cls.state = n
        return NodeOutput(n, ui=_Ui())


CLASSES = {
    cls.__name__: cls
    for cls in (
        *(Const, Add, Show, Silent, ToList, SumList, Kwargs, Switch, LazyInTurn, LazyWrong, NeverLazy, Block, Fail, Returns, Hidden),
        *(Changed, Counter, Expand, ExpandBad, LoopOpen, LoopClose, Steps, Later, Draws, DrawsLater, V3),
    )
}
