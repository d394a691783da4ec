"""The names of `comfy_api.latest.io`: `io.ComfyNode`, `io.Schema`, `io.Int.Input`, `io.NodeOutput` and so on."""

from __future__ import annotations

from typing import Any

from comfy.nodes.v3.base import ComfyType, Custom, Input, Output, WidgetInput, comfytype
from comfy.nodes.v3.iotype import IoType
from comfy.nodes.v3.node import ComfyNode, HiddenHolder, NodeOutput, mappings
from comfy.nodes.v3.schema import Hidden, NodeInfoV1, NodeInfoV3, Schema
from comfy.nodes.v3.types import DATA, AnyType, AutogrowDynamic, ComboDynamic, MatchType, MultiType
from comfy.nodes.v3.widgets import (
    Boolean,
    Combo,
    Float,
    FolderType,
    Int,
    MultiCombo,
    NumberDisplay,
    RemoteOptions,
    String,
    UploadType,
    Webcam,
)

ComfyTypeIO = ComfyType

__all__ = [
    "AnyType",
    "AutogrowDynamic",
    "Boolean",
    "Combo",
    "ComboDynamic",
    "ComfyNode",
    "ComfyType",
    "ComfyTypeIO",
    "Custom",
    "Float",
    "FolderType",
    "Hidden",
    "HiddenHolder",
    "Input",
    "Int",
    "IoType",
    "MatchType",
    "MultiCombo",
    "MultiType",
    "NodeInfoV1",
    "NodeInfoV3",
    "NodeOutput",
    "NumberDisplay",
    "Output",
    "RemoteOptions",
    "Schema",
    "String",
    "UploadType",
    "Webcam",
    "WidgetInput",
    "comfytype",
    "mappings",
]


def __getattr__(name: str) -> Any:
    """The data types: `io.Image`, `io.Latent` …, from one table."""
    if name in DATA:
        return DATA[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
