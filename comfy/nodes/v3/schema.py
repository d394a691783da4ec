"""The description of a V3 node and what it looks like to clients (contract: custom-nodes.md section 4.2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from comfy.nodes.v3.base import Input, Output


class Hidden(str, Enum):
    """What a node may ask the executor for; read as attributes of `cls.hidden`."""

    unique_id = "UNIQUE_ID"
    prompt = "PROMPT"
    extra_pnginfo = "EXTRA_PNGINFO"
    dynprompt = "DYNPROMPT"
    auth_token_comfy_org = "AUTH_TOKEN_COMFY_ORG"
    api_key_comfy_org = "API_KEY_COMFY_ORG"


@dataclass
class NodeInfoV1:
    """One node of `/object_info`."""

    input: dict[str, Any]
    input_order: dict[str, list[str]]
    output: list[Any]
    output_is_list: list[bool]
    output_name: list[str]
    output_tooltips: list[str | None]
    name: str
    display_name: str | None
    description: str
    python_module: str
    category: str
    output_node: bool
    deprecated: bool
    experimental: bool
    api_node: bool


@dataclass
class NodeInfoV3:
    """One node in the form of the V3 API: inputs and outputs as objects by id."""

    input: dict[str, Any]
    output: list[dict[str, Any]]
    hidden: list[str]
    name: str
    display_name: str | None
    description: str
    python_module: str
    category: str
    output_node: bool
    deprecated: bool
    experimental: bool
    api_node: bool


@dataclass
class Schema:
    """What a node is: its name, its slots, its flags."""

    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    hidden: list[Hidden] = field(default_factory=list)
    description: str = ""
    is_input_list: bool = False
    is_output_node: bool = False
    is_deprecated: bool = False
    is_experimental: bool = False
    is_api_node: bool = False
    not_idempotent: bool = False
    enable_expand: bool = False

    def __post_init__(self) -> None:
        self.inputs = list(self.inputs or [])
        self.outputs = list(self.outputs or [])
        self.hidden = list(self.hidden or [])

    def all_inputs(self) -> list[Input]:
        """The inputs, dynamic ones expanded."""
        return [one for declared in self.inputs for one in declared.get_all()]

    def validate(self) -> None:
        """Raise ValueError when an id is used twice, among inputs, among outputs or between them."""
        for one in self.inputs:
            one.validate()
        inputs = [one.id for one in self.all_inputs()]
        outputs = [one.id for one in self.outputs if one.id is not None]
        for what, ids in (("input", inputs), ("output", outputs), ("input and output", [*set(inputs), *set(outputs)])):
            twice = _twice(ids)
            if twice:
                raise ValueError(f"node {self.node_id}: the {what} ids {', '.join(twice)} are used more than once")

    def finalize(self) -> None:
        """Fill in what follows from the flags: hidden values of output and API nodes, ids of outputs."""
        wanted: list[Hidden] = []
        if self.is_api_node:
            wanted += [Hidden.auth_token_comfy_org, Hidden.api_key_comfy_org]
        if self.is_output_node:
            wanted += [Hidden.prompt, Hidden.extra_pnginfo]
        self.hidden += [one for one in wanted if one not in self.hidden]
        for index, output in enumerate(self.outputs):
            if output.id is None:
                kind = output.io_type if isinstance(output.io_type, str) else "COMBO"
                output.id = f"_{index}_{kind}_"

    def input_types(self, include_hidden: bool = True) -> dict[str, Any]:
        """The inputs as V1's INPUT_TYPES gives them."""
        groups: dict[str, Any] = {"required": {}}
        for one in self.all_inputs():
            groups.setdefault("optional" if one.optional else "required", {})[one.id] = (one.get_io_type(), one.as_dict())
        if include_hidden and self.hidden:
            groups["hidden"] = {one.name: (one.value,) for one in self.hidden}
        return groups

    def info_v1(self, python_module: str) -> dict[str, Any]:
        """The node as `/object_info` shows it."""
        groups = self.input_types()
        info = NodeInfoV1(
            input=groups,
            input_order={group: list(entries) for group, entries in groups.items()},
            output=[one.io_type for one in self.outputs],
            output_is_list=[one.is_output_list for one in self.outputs],
            output_name=self.output_names(),
            output_tooltips=[one.tooltip for one in self.outputs],
            python_module=python_module,
            **self._common(),
        )
        return vars(info)

    def info_v3(self, python_module: str) -> dict[str, Any]:
        """The node in the V3 form."""
        groups: dict[str, Any] = {"required": {}, "optional": {}}
        for one in self.all_inputs():
            groups["optional" if one.optional else "required"][one.id] = (str(one.get_io_type()), one.as_dict())
        info = NodeInfoV3(
            input=groups,
            output=[_describe(one) for one in self.outputs],
            hidden=[one.value for one in self.hidden],
            python_module=python_module,
            **self._common(),
        )
        return vars(info)

    def output_names(self) -> list[str]:
        """The slots' titles: display name, else type."""
        return [one.display_name or (one.io_type if isinstance(one.io_type, str) else "COMBO") for one in self.outputs]

    def _common(self) -> dict[str, Any]:
        return {
            "name": self.node_id,
            "display_name": self.display_name,
            "description": self.description,
            "category": self.category,
            "output_node": self.is_output_node,
            "deprecated": self.is_deprecated,
            "experimental": self.is_experimental,
            "api_node": self.is_api_node,
        }


def _describe(output: Output) -> dict[str, Any]:
    described = {"id": output.id, "type": output.io_type, "display_name": output.display_name, "tooltip": output.tooltip}
    return {**{key: value for key, value in described.items() if value is not None}, "is_output_list": output.is_output_list}


def _twice(ids: Iterable[str]) -> Sequence[str]:
    seen: set[str] = set()
    return sorted({one for one in ids if one in seen or seen.add(one)})  # type: ignore[func-returns-value]
