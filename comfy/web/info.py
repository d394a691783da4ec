"""What the server says about itself: nodes, machine, features (contract: http-api.md section 5)."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch
from aiohttp import web

from comfy import jsonio
from comfy.config import VERSION, Config
from comfy.nodes.registry import NodeRegistry
from comfy.web.errors import json_bytes, json_response

if TYPE_CHECKING:
    from server import PromptServer

FRONTEND_PACKAGE, FRONTEND_VERSION = "comfyui-frontend-package", "1.27.10"
TEMPLATES_PACKAGE, TEMPLATES_VERSION = "comfyui-workflow-templates", "0.1.95"


def features(config: Config) -> dict[str, Any]:
    """What the server can do, as `/features` and the websocket's `feature_flags` tell it."""
    return {"supports_preview_metadata": True, "max_upload_size": config.max_upload_bytes}


def installed_version(package: str) -> str | None:
    """Version of an installed package, None when it is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def device_facts(name: str) -> dict[str, Any]:
    """One device's name and memory in bytes. A CPU's is the RAM."""
    device = torch.device(name)
    if device.type != "cuda":
        ram = psutil.virtual_memory()
        sizes = {"vram_total": ram.total, "vram_free": ram.available, "torch_vram_total": ram.total, "torch_vram_free": ram.available}
        return {"name": name, "type": device.type, "index": device.index, **sizes}
    free, total = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device)
    cached = reserved - torch.cuda.memory_allocated(device)
    full_name = f"{device} {torch.cuda.get_device_name(device)} : {torch.cuda.get_allocator_backend()}"
    sizes = {"vram_total": total, "vram_free": free + cached, "torch_vram_total": reserved, "torch_vram_free": cached}
    return {"name": full_name, "type": "cuda", "index": device.index, **sizes}


def system_stats(config: Config, devices: Iterable[str]) -> dict[str, Any]:
    """The answer of `/system_stats`: the machine, then each lane's device once."""
    ram = psutil.virtual_memory()
    system = {
        "os": os.name,
        "ram_total": ram.total,
        "ram_free": ram.available,
        "comfyui_version": VERSION,
        "required_frontend_version": FRONTEND_VERSION,
        "installed_templates_version": installed_version(TEMPLATES_PACKAGE),
        "required_templates_version": TEMPLATES_VERSION,
        "python_version": sys.version,
        "pytorch_version": torch.__version__,
        "embedded_python": any(Path(sys.executable).parent.glob("python*._pth")),
        "argv": list(config.argv),
    }
    return {"system": system, "devices": [device_facts(name) for name in dict.fromkeys(devices)]}


def describe_one(registry: NodeRegistry, name: str) -> dict[str, Any]:
    """`{name: info}`, `{}` for an unknown class. Raises what the class raises."""
    return {name: registry.describe(name)} if name in registry.classes else {}


def routes(server: PromptServer) -> web.RouteTableDef:
    """`/object_info`, `/system_stats`, `/features`."""
    table = web.RouteTableDef()

    @table.get("/object_info")
    async def object_info(request: web.Request) -> web.Response:
        # in a thread: hundreds of classes, many of which list model folders on disk
        answer = await asyncio.to_thread(lambda: jsonio.dump_bytes(server.registry.describe_all()))
        return json_bytes(answer)

    @table.get("/object_info/{node_class}")
    async def object_info_of(request: web.Request) -> web.Response:
        name = request.match_info["node_class"]
        return json_response(await asyncio.to_thread(describe_one, server.registry, name))

    @table.get("/system_stats")
    async def get_system_stats(request: web.Request) -> web.Response:
        devices = [view.lane.device for view in server.scheduler.lanes()]
        return json_response(await asyncio.to_thread(system_stats, server.config, devices))

    @table.get("/features")
    async def get_features(request: web.Request) -> web.Response:
        return json_response(features(server.config))

    return table
