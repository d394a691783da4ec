"""Nodes that show one behaviour of the server each, for the conformance and browser tests. Loaded as a custom-node pack.

A node that has a `gate` waits before each step until a test opens it: POST /probe/open/{gate}?n=2 lets two steps pass.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import torch
from aiohttp import web
from PIL import Image

import comfy.model_management
from comfy.utils import ProgressBar
from comfy_api.latest import io
from comfy_execution.graph import ExecutionBlocker
from comfy_execution.graph_utils import GraphBuilder
from server import PromptServer

WAIT_S = 60.0  #: after this a gate that nobody opens fails its node

_lock = threading.Lock()
_gates: dict[str, threading.Semaphore] = {}
_runs: dict[str, int] = {}


def gate(name: str) -> threading.Semaphore:
    """The gate of that name."""
    with _lock:
        return _gates.setdefault(name, threading.Semaphore(0))


def count(name: str) -> None:
    """Remember that a node with this label ran."""
    with _lock:
        _runs[name] = _runs.get(name, 0) + 1


def wait(name: str) -> None:
    """Wait for one opening of the gate; stops with the job."""
    until = time.monotonic() + WAIT_S
    while name and not gate(name).acquire(timeout=0.02):
        comfy.model_management.throw_exception_if_processing_interrupted()
        if time.monotonic() > until:
            raise RuntimeError(f"nobody opened the gate {name}")


@PromptServer.instance.routes.post("/probe/open/{name}")
async def open_gate(request: web.Request) -> web.Response:
    gate(request.match_info["name"]).release(int(request.query.get("n", "1")))
    return web.json_response({})


@PromptServer.instance.routes.post("/probe/say/{sid}")
async def say(request: web.Request) -> web.Response:
    PromptServer.instance.send_sync("probe", {}, request.match_info["sid"])
    return web.json_response({})


@PromptServer.instance.routes.get("/probe/runs")
async def runs(request: web.Request) -> web.Response:
    return web.json_response(_runs)


class ProbeNumber:
    """A number."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "make", ("INT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"n": ("INT", {"default": 1, "min": 0, "max": 1000})}}

    def make(self, n: int) -> tuple[int]:
        return (n,)


class ProbeAdd:
    """The sum of two numbers."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "add", ("INT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"a": ("INT", {"forceInput": True}), "b": ("INT", {"forceInput": True})}}

    def add(self, a: int, b: int) -> tuple[int]:
        return (a + b,)


class ProbeNoise:
    """A picture of noise."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "make", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"seed": ("INT", {"default": 0}), "size": ("INT", {"default": 16, "min": 1, "max": 512})}}

    def make(self, seed: int, size: int) -> tuple[torch.Tensor]:
        count(f"noise {seed}")
        return (torch.rand((1, size, size, 3), generator=torch.Generator("cpu").manual_seed(seed)),)


class ProbeSteps:
    """Passes a number on after some steps, each of which waits for the gate and is reported, with a preview if asked for."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "run", ("INT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        required = {
            "value": ("INT", {"forceInput": True}),
            "steps": ("INT", {"default": 2, "min": 0, "max": 10000}),
            "gate": ("STRING", {"default": ""}),
            "preview": ("BOOLEAN", {"default": False}),
        }
        return {"required": required}

    def run(self, value: int, steps: int, gate: str, preview: bool) -> tuple[int]:
        bar = ProgressBar(steps)
        for step in range(steps):
            wait(gate)
            bar.update_absolute(step + 1, steps, ("JPEG", Image.new("RGB", (64, 32), (255, 0, 0)), 512) if preview else None)
        return (value,)


class ProbeSilent:
    """Waits for its gate without reporting or asking anything."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "run", ("INT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {"forceInput": True}), "gate": ("STRING", {"default": ""})}}

    def run(self, value: int, gate: str) -> tuple[int]:
        count(f"silent {gate} begins")
        if not globals()["gate"](gate).acquire(timeout=WAIT_S):
            raise RuntimeError(f"nobody opened the gate {gate}")
        count(f"silent {gate} ends")
        return (value,)


class ProbeShow:
    """Shows a value as text."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "probe", "show", ("INT",), True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {"forceInput": True})}}

    def show(self, value: int) -> dict[str, Any]:
        return {"ui": {"text": [str(value)]}, "result": (value,)}


class ProbeShowToo(ProbeShow):
    """Another class with the same effect: equal nodes of one class run once."""


class ProbeQuiet(ProbeShow):
    """An output without anything to show."""

    def show(self, value: int) -> tuple[int]:
        return (value,)


class ProbeFail(ProbeShow):
    """Fails."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {"forceInput": True}), "n": ("INT", {"default": 3})}}

    def show(self, value: int, n: int) -> dict[str, Any]:
        raise ValueError(f"probe failure {n}")


class ProbeSwitch:
    """Evaluates only the branch that it takes."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "choose", ("INT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        lazy = ("INT", {"lazy": True, "forceInput": True})
        return {"required": {"second": ("BOOLEAN", {"default": False}), "a": lazy, "b": lazy}}

    def check_lazy_status(self, second: bool, a: Any = None, b: Any = None) -> list[str]:
        return ["b" if second else "a"]

    def choose(self, second: bool, a: Any = None, b: Any = None) -> tuple[Any]:
        return (b if second else a,)


class ProbeItems:
    """The numbers 0 … n-1 as a list."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_IS_LIST = "probe", "make", ("INT",), (True,)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"n": ("INT", {"default": 3})}}

    def make(self, n: int) -> tuple[list[int]]:
        return (list(range(n)),)


class ProbeAsync:
    """Passes a number on once its gate is open, and lets others run meanwhile."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "run", ("INT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {"forceInput": True}), "gate": ("STRING", {"default": ""})}}

    async def run(self, value: int, gate: str) -> tuple[int]:
        semaphore, until = globals()["gate"](gate), time.monotonic() + WAIT_S
        while gate and not semaphore.acquire(blocking=False):
            await asyncio.sleep(0.01)
            if time.monotonic() > until:
                raise RuntimeError(f"nobody opened the gate {gate}")
        return (value,)


class ProbeExpand:
    """Becomes value + n."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "expand", ("INT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {"forceInput": True}), "n": ("INT", {"default": 1})}}

    def expand(self, value: int, n: int) -> dict[str, Any]:
        graph = GraphBuilder()
        number = graph.node("ProbeNumber", n=n)
        total = graph.node("ProbeAdd", a=number.out(0), b=value)
        return {"result": (total.out(0),), "expand": graph.finalize()}


class ProbeBlock:
    """Blocks what depends on it, with a message or silently."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "block", ("INT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"message": ("STRING", {"default": ""})}}

    def block(self, message: str) -> tuple[Any]:
        return (ExecutionBlocker(message or None),)


class ProbeText(ProbeShow):
    """Sends a line of text to show at the node while it runs."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"text": ("STRING", {"default": "hello"})}, "hidden": {"unique_id": "UNIQUE_ID"}}

    def show(self, text: str, unique_id: str) -> dict[str, Any]:
        PromptServer.instance.send_progress_text(text, unique_id, PromptServer.instance.client_id)
        return {"ui": {"text": [text]}, "result": (1,)}


class ProbeChecked(ProbeShow):
    """Has a validator of its own."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"word": ("STRING", {"default": "good"}), "kind": (["a", "b"], {})}}

    @classmethod
    def VALIDATE_INPUTS(cls, word: str) -> bool | str:
        return True if word == "good" else f"{word} is not good"

    def show(self, word: str, kind: str) -> dict[str, Any]:
        return {"ui": {"text": [word + kind]}, "result": (1,)}


class ProbeNewStyle(io.ComfyNode):
    """A node of the new style, without a display name."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="ProbeNewStyle", category="probe", inputs=[io.Int.Input("n", default=1)], outputs=[io.Int.Output()])

    @classmethod
    def execute(cls, n: int) -> io.NodeOutput:
        return io.NodeOutput(n)


_CLASSES = [
    ProbeNumber, ProbeAdd, ProbeNoise, ProbeSteps, ProbeSilent, ProbeShow, ProbeShowToo, ProbeQuiet, ProbeFail, ProbeSwitch, ProbeItems,
    ProbeAsync, ProbeExpand, ProbeBlock, ProbeText, ProbeChecked, ProbeNewStyle,
]  # fmt: skip
NODE_CLASS_MAPPINGS = {cls.__name__: cls for cls in _CLASSES}
NODE_DISPLAY_NAME_MAPPINGS = {"ProbeNumber": "A number"}
WEB_DIRECTORY = "./web"
