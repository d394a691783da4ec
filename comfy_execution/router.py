"""Which lane gets a prompt: the header's word, else a pure function of what the lanes do."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comfy.errors import TargetGpuInvalid

MODEL_SUFFIXES = (".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl")


@dataclass(frozen=True)
class LaneLoad:
    """What the router may know of one lane.

    jobs   waiting + running + finishing
    holds  names of the model files on its device, or on their way there
    takes  the router may choose it: not paused, and listed in COMFY_AUTO_GPUS
    """

    index: int
    jobs: int = 0
    holds: frozenset[str] = frozenset()
    takes: bool = True


def parse_target(values: Sequence[str], n_lanes: int) -> int | None:
    """All values of the X-TARGET-GPU header -> a lane's index, or None for the router's choice (absent or `auto`).

    An index is ASCII digits only. Anything else, also a repeated header, raises TargetGpuInvalid with the valid range.
    """
    if not values:
        return None
    text = values[0].strip(" \t")
    if len(values) == 1 and text.lower() == "auto":
        return None
    if len(values) == 1 and text.isascii() and text.isdigit() and len(text) <= 9 and int(text) < n_lanes:
        return int(text)
    raise TargetGpuInvalid(field="X-TARGET-GPU", given=", ".join(values)[:80], valid=f"0-{n_lanes - 1} or auto")


def choose_lane(lanes: Sequence[LaneLoad], wants: Collection[str] = ()) -> int:
    """The lane for a prompt that names none: fewest jobs, then most of the wanted models already there, then lowest index.

    When no lane takes automatic jobs, all are considered: a prompt is never refused for want of a target.
    """
    able = [lane for lane in lanes if lane.takes] or list(lanes)
    return min(able, key=lambda lane: (lane.jobs, -len(lane.holds.intersection(wants)), lane.index)).index


def wanted_models(prompt: Mapping[str, Any]) -> frozenset[str]:
    """Names of model files among the literals of a prompt: what its loaders will ask for."""
    return frozenset(_names(prompt))


def _names(prompt: Mapping[str, Any]) -> Iterator[str]:
    for node in prompt.values():
        inputs = node.get("inputs", {}) if isinstance(node, Mapping) else {}
        for value in inputs.values():
            if isinstance(value, str) and value.lower().endswith(MODEL_SUFFIXES):
                yield value
