"""Files of ControlNets -> structure and names. Contract: models.md section 8: the ldm and the diffusers layout.

Told by structure, as UNets are: the way up, which a ControlNet lacks, counts as empty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from comfy.models.component import Component
from comfy.models.control_config import ControlConfig
from comfy.models.detect import Shapes, diffusers_unet_config, unet_config
from comfy.models.diffusers_unet import unet_tensors
from comfy.models.layouts import Place
from comfy.weights.files import FileIndex, TensorInfo

PREFIX = "control_model."
LDM_MARK, DIFFUSERS_MARK = "zero_convs.0.0.weight", "controlnet_cond_embedding.conv_in.weight"
#: files with this tensor hold what is to be added to the weights of the base model
DIFFERENCE = "difference"
_HINT = re.compile(r"^controlnet_cond_embedding\.(?:conv_(in|out)|blocks\.(\d+))\.(weight|bias)$")
_ZERO = re.compile(r"^controlnet_down_blocks\.(\d+)\.(weight|bias)$")
_HINT_LAYER = re.compile(r"^input_hint_block\.(\d+)\.weight$")
Shape = tuple[int, ...]


@dataclass(frozen=True)
class ControlComponent(Component):
    """A ControlNet of a file in either layout."""

    def sources(self, index: FileIndex) -> dict[str, tuple[TensorInfo, Place]]:
        under = {name[len(self.prefix) :]: info for name, info in index.tensors.items() if name.startswith(self.prefix)}
        names = run_time_names({name: info.shape for name, info in under.items()}, index.identity.name)
        return {ours: (under[theirs], Place(theirs)) for ours, theirs in names.items()}


def control_prefix(names: Shapes) -> str:
    """Where the ControlNet lies in a file."""
    return PREFIX if PREFIX + LDM_MARK in names else ""


def control_config(names: Shapes) -> ControlConfig:
    """The structure, its prefix off. Raises ModelUnknown for other kinds of control, WeightFileInvalid."""
    if "lora_controlnet" in names or "control_add_embedding.linear_1.bias" in names:
        names.refuse("It is a control-LoRA or a union ControlNet, which this server does not know yet.")
    if LDM_MARK not in names and DIFFUSERS_MARK not in names:
        names.refuse("There is no ControlNet of the SD family in it.")
    renamed = run_time_names(names.shapes, names.file_name)
    shapes = {ours: names.shapes[theirs] for ours, theirs in renamed.items()}
    plain = Shapes(names.file_name, shapes)
    up = {f"output_blocks.{i}.0.none": () for i in range(plain.count("input_blocks.{}."))}
    unet = unet_config(Shapes(names.file_name, {**shapes, **up}))
    layers = sorted(int(found[1]) for name in shapes if (found := _HINT_LAYER.match(name)))
    widths = tuple(plain.shape(f"input_hint_block.{layer}.weight", 4)[0] for layer in layers[:-1])
    return ControlConfig(unet, plain.shape("input_hint_block.0.weight", 4)[1], widths)


def run_time_names(shapes: Mapping[str, Shape], file_name: str) -> dict[str, str]:
    """Name in our network -> name in the file, its prefix off."""
    if DIFFUSERS_MARK not in shapes:
        return {name: name for name in shapes}
    given, blocks = Shapes(file_name, shapes), dict[str, Shape]()
    levels = given.count("down_blocks.{}.")
    for level in range(levels):
        residuals = given.count(f"down_blocks.{level}.resnets.{{}}.")
        blocks |= {f"up_blocks.{levels - 1 - level}.resnets.{i}.none": () for i in range(residuals + 1)}
    config = diffusers_unet_config(Shapes(file_name, {**shapes, **blocks}))
    names = {ours: theirs for theirs, ours in unet_tensors(config, shapes).items()}
    last = sum(bool(_HINT.match(name)) and name.endswith("weight") for name in shapes) - 1
    for name in shapes:
        if (hint := _HINT.match(name)) is not None:
            layer = {"in": 0, "out": last}.get(hint[1] or "", int(hint[2] or 0) + 1)
            names[f"input_hint_block.{2 * layer}.{hint[3]}"] = name
        elif (zero := _ZERO.match(name)) is not None:
            names[f"zero_convs.{zero[1]}.0.{zero[2]}"] = name
        elif name.startswith("controlnet_mid_block."):
            names["middle_block_out.0." + name.rpartition(".")[2]] = name
    return names
