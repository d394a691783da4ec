"""A pack as there are many: routes, events, a handler for submissions, threads, subclasses of built-in nodes, module globals."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from aiohttp import web
from PIL import Image

import comfy.model_management as mm
import folder_paths
import nodes
from comfy.device import context
from server import PromptServer

DEVICE = mm.get_torch_device()  # kept at import, as packs do
_models: dict[str, Any] = {}


def flags() -> dict[str, Any]:
    """The process-wide switches of torch that change numbers or kernels."""
    cuda = torch.backends.cuda
    return {
        "flash": cuda.flash_sdp_enabled(),
        "efficient": cuda.mem_efficient_sdp_enabled(),
        "math": cuda.math_sdp_enabled(),
        "cudnn": cuda.cudnn_sdp_enabled(),
        "tf32": cuda.matmul.allow_tf32,
        "fp16_accumulation": cuda.matmul.allow_fp16_accumulation,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "dtype": str(torch.get_default_dtype()),
    }


FLAGS_AT_START = flags()
QUEUE = PromptServer.instance.prompt_queue  # taken while loading, used later
nodes.EXTENSION_WEB_DIRS["everyday-more"] = os.path.join(os.path.dirname(__file__), "locales")
routes = PromptServer.instance.routes


@routes.get("/everyday/hello")
async def hello(request: web.Request) -> web.Response:
    return web.json_response({"hello": "world", "client": PromptServer.instance.client_id})


@routes.post("/everyday/echo/{sid}")
async def echo(request: web.Request) -> web.Response:
    PromptServer.instance.send_sync("everyday-echo", await request.json(), request.match_info["sid"])
    return web.json_response({})


@routes.get("/everyday/broken")
async def broken(request: web.Request) -> web.Response:
    raise ValueError("a route of a pack failed")


@routes.get("/everyday/flags")
async def show_flags(request: web.Request) -> web.Response:
    return web.json_response([FLAGS_AT_START, flags()])


def on_prompt(body: dict[str, Any]) -> dict[str, Any]:
    """Raise the number of nodes that ask for it, as packs with "random seed on each run" do."""
    for node in body.get("prompt", {}).values():
        if isinstance(node, dict) and node.get("_meta", {}).get("title") == "raise me":
            node["inputs"]["n"] += 1
    return body


def on_prompt_that_fails(body: dict[str, Any]) -> dict[str, Any]:
    raise RuntimeError("a handler of a pack failed")


PromptServer.instance.add_on_prompt_handler(on_prompt)
PromptServer.instance.add_on_prompt_handler(on_prompt_that_fails)


def where() -> list[Any]:
    """(lane, prompt, client, device) of the calling code."""
    lane = context.current_or_none()
    here = PromptServer.instance
    return [None if lane is None else lane.index, here.last_prompt_id, here.client_id, str(mm.get_torch_device())]


class EverydayWhere:
    """Where its function, a thread of it and two tasks of a pool run."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "everyday", "run", (), True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"n": ("INT", {"default": 0})}}

    def run(self, n: int) -> dict[str, Any]:
        seen: list[Any] = [where()]

        def work() -> None:
            seen.append(where())
            PromptServer.instance.send_sync("everyday-thread", {"n": n}, PromptServer.instance.client_id)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        seen += [POOL.submit(where).result(), *POOL.map(lambda _: where(), [0])]
        return {"ui": {"text": [json.dumps(seen)]}}


POOL = ThreadPoolExecutor(2)


class EverydayAgain:
    """Queues its own prompt again with a smaller number, as video packs do."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "everyday", "run", (), True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"n": ("INT", {"default": 0})}, "hidden": {"unique_id": "UNIQUE_ID"}}

    @classmethod
    def IS_CHANGED(cls, n: int, unique_id: str) -> float:
        return float("nan")

    def run(self, n: int, unique_id: str) -> dict[str, Any]:
        queue = QUEUE
        assert len(queue.currently_running) == 1
        item = next(iter(queue.currently_running.values()))
        if n > 0:
            prompt = json.loads(json.dumps(item[2]))
            prompt[unique_id]["inputs"]["n"] = n - 1
            queue.put((item[0], f"again-{item[1]}", prompt, item[3], item[4], {}))
        return {"ui": {"text": [item[1]]}}


class EverydayKeptModel:
    """A checkpoint kept in a global of the pack, whichever lane asks."""

    CATEGORY, FUNCTION, RETURN_TYPES = "everyday", "load", ("MODEL", "CLIP", "VAE")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"ckpt_name": (folder_paths.get_filename_list("checkpoints"),)}}

    def load(self, ckpt_name: str) -> tuple[Any, ...]:
        if ckpt_name not in _models:
            _models[ckpt_name] = nodes.CheckpointLoaderSimple().load_checkpoint(ckpt_name)
        return tuple(_models[ckpt_name])


class EverydaySampled:
    """Samples by calling built-in nodes from Python."""

    CATEGORY, FUNCTION, RETURN_TYPES = "everyday", "run", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",), "clip": ("CLIP",), "seed": ("INT", {"default": 0})}}

    def run(self, model: Any, clip: Any, seed: int) -> tuple[Any]:
        (positive,) = nodes.CLIPTextEncode().encode(clip, "a cat")
        cls = nodes.NODE_CLASS_MAPPINGS["EmptyLatentImage"]
        (latent,) = getattr(cls(), cls.FUNCTION)(width=64, height=64, batch_size=1)
        return nodes.common_ksampler(model, seed, 1, 1.0, "euler", "normal", positive, positive, latent)


class EverydaySaver:
    """Saves pictures by itself, counting on from the number that it was given."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "everyday", "run", (), True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"colour": ("INT", {"default": 0}), "count": ("INT", {"default": 1}), "prefix": ("STRING", {"default": "x"})}}

    def run(self, colour: int, count: int, prefix: str) -> dict[str, Any]:
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory(), 8, 8)
        saved = []
        for number in range(counter, counter + count):
            file = f"{name}_{number:05}_.png"
            Image.fromarray(np.full((8, 8, 3), colour, np.uint8)).save(f"{folder}/{file}")
            saved.append({"filename": file, "subfolder": subfolder, "type": "output"})
        return {"ui": {"images": saved, "everyday": [colour]}}


class EverydayPreview(nodes.PreviewImage):
    """A built-in node with settings of its own, as seven packs have it."""

    CATEGORY, FUNCTION = "everyday", "run"

    def __init__(self) -> None:
        super().__init__()
        self.output_dir = folder_paths.get_temp_directory()
        self.type = "temp"
        self.prefix_append = "_everyday"
        self.compress_level = 1

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"images": ("IMAGE",)}, "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}}

    def run(self, images: torch.Tensor, prompt: Any = None, extra_pnginfo: Any = None) -> Any:
        return self.save_images(images.to(DEVICE), "mine", prompt, extra_pnginfo)


class EverydayPoison:
    """Does what no node should."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "everyday", "run", ("INT",), True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"how": ("STRING", {"default": "exit"})}}

    def run(self, how: str) -> Any:
        if how == "exit":
            raise SystemExit(3)
        if how == "keyboard":
            raise KeyboardInterrupt
        if how == "link":
            return {"result": (["nobody", 0],), "expand": {"a": {"class_type": "ProbeAdd", "inputs": {"a": ["nobody", 0], "b": 1}}}}
        if how == "class":
            return {"result": (["b", 0],), "expand": {"b": {"class_type": "NoSuchClass", "inputs": {}}}}
        return {"ui": {"text": [object()]}, "result": 5}


_CLASSES = [EverydayWhere, EverydayAgain, EverydayKeptModel, EverydaySampled, EverydaySaver, EverydayPreview, EverydayPoison]
NODE_CLASS_MAPPINGS = {cls.__name__: cls for cls in _CLASSES}
NODE_DISPLAY_NAME_MAPPINGS = {"EverydayWhere": "Where am I"}
WEB_DIRECTORY = "./web"
