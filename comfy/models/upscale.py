"""Files of networks that enlarge pictures -> handles: which network it is, and its weights' names in that file.

Known are the layouts in which RRDB networks (ESRGAN, Real-ESRGAN, most community models) and Real-ESRGAN's compact ones
were published.
"""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from comfy.device import context
from comfy.device.context import DeviceContext
from comfy.errors import WeightFileInvalid
from comfy.ldm.upscale import UpscaleConfig, build_upscaler
from comfy.models.detect import Shapes
from comfy.weights.files import FileIdentity, FileIndex
from comfy.weights.header import open_index
from comfy.weights.plan import SlabEntry, SlabKey

#: of a GPU's budget: what one tile may take; tiles are halved until it does, but never below LEAST_TILE
ACTIVATION_SHARE = 0.4
TILE, LEAST_TILE = 512, 128
DTYPE = torch.float32

_RENAMED = (
    (re.compile(r"^RRDB_trunk\.(\d+)\.RDB(\d)\."), r"body.\1.rdb\2."),
    (re.compile(r"^trunk_conv\."), "conv_body."),
    (re.compile(r"^upconv(\d)\."), r"conv_up\1."),
    (re.compile(r"^HRconv\."), "conv_hr."),
)
_OLD_DENSE = re.compile(r"^model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.")
_OLD_BODY = re.compile(r"^model\.1\.sub\.\d+\.(weight|bias)$")
_OLD_CONV = re.compile(r"^model\.(\d+)\.(weight|bias)$")


@dataclass(frozen=True)
class UpscaleModel:
    """The UPSCALE_MODEL of nodes: a file and its structure, no weights. Valid on any lane.

    names  of the network -> of the file
    """

    file: FileIdentity
    config: UpscaleConfig
    names: tuple[tuple[str, str], ...]

    @property
    def scale(self) -> int:
        """By how much a side grows."""
        return self.config.scale

    @property
    def input_channels(self) -> int:
        return self.config.in_channels

    @property
    def output_channels(self) -> int:
        return self.config.out_channels

    @property
    def model(self) -> nn.Module:
        """The calling lane's network. Raises OutsideLane in a thread that belongs to none."""
        return self.module(context.current())

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return context.current().device

    @property
    def dtype(self) -> torch.dtype:
        return DTYPE

    def to(self, *args: Any, **kwargs: Any) -> UpscaleModel:
        """Itself: a lane decides where its network is. Custom nodes move models about."""
        return self

    cpu = cuda = eval = to

    def module(self, lane: DeviceContext) -> nn.Module:
        """The network on `lane`, brought there when it is not."""
        key = SlabKey(self.file, "upscale", str(DTYPE).removeprefix("torch."))
        return lane.resident.module(key, self._entries, functools.partial(build_upscaler, self.config), self.file.name)

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        """(b, c, h, w) in 0..1 -> (b, c, scale h, scale w) float32 on the lane's device, about 0..1."""
        lane = context.current()
        made: Tensor = self.module(lane)(image.to(device=lane.device, dtype=DTYPE))
        return made

    def tile(self) -> int:
        """The tile's side in pixels, by the calling lane's fixed budget: the same picture has the same tiles each time."""
        lane, side = context.current(), TILE
        while lane.device.type != "cpu" and side > LEAST_TILE and self._bytes(side) > lane.budget_bytes * ACTIVATION_SHARE:
            side //= 2
        return side

    def _bytes(self, side: int) -> int:
        """About what a tile takes: the dense block at the input's size, and three maps at the output's."""
        inside = self.config.features + 5 * self.config.growth
        return side * side * DTYPE.itemsize * (inside * 2 + 3 * self.config.features * self.config.scale**2)

    def _entries(self) -> list[SlabEntry]:
        index = open_index(self.file.path)
        if index.identity != self.file:
            raise WeightFileInvalid("It was replaced since it was loaded; run the prompt again.", file=self.file.name)
        return [SlabEntry(name, index.tensors[stored], DTYPE) for name, stored in self.names]


def load_upscale_model(path: str | os.PathLike[str]) -> UpscaleModel:
    """The handle of a file. Raises WeightFileMissing, WeightFileInvalid, or ModelUnknown with what was seen."""
    index = open_index(path)
    names = stored_names(index)
    config = upscale_config(Shapes(index.identity.name, {name: index.tensors[stored].shape for name, stored in names.items()}))
    with torch.device("meta"):
        wanted = build_upscaler(config).state_dict()
    for name, tensor in wanted.items():
        found = index.tensors[names[name]].shape if name in names else None
        if found != tuple(tensor.shape):
            raise WeightFileInvalid(
                "A tensor is missing or has another size.",
                file=index.identity.name,
                tensor=name,
                shape=found,
                expected_shape=list(tensor.shape),
            )
    return UpscaleModel(index.identity, config, tuple((name, names[name]) for name in wanted))


def stored_names(index: FileIndex) -> dict[str, str]:
    """Name in our networks -> name in the file."""
    plain = {name.removeprefix("module."): name for name in index.tensors}
    if any(name.startswith("model.1.sub.") for name in plain):
        return _old_names(plain)
    renamed = {}
    for name, stored in plain.items():
        for pattern, replacement in _RENAMED:
            name = pattern.sub(replacement, name)
        renamed[name] = stored
    return renamed


def _old_names(plain: Mapping[str, str]) -> dict[str, str]:
    """Those of ESRGAN's first files, which number the layers of one sequence: first, blocks, doublings, two at the end."""
    numbers = sorted({int(found[1]) for name in plain if (found := _OLD_CONV.match(name))})
    ends = {numbers[0]: "conv_first", numbers[-1]: "conv_last", numbers[-2]: "conv_hr"} if len(numbers) >= 3 else {}
    layers = {**{number: f"conv_up{i}" for i, number in enumerate(numbers[1:-2], 1)}, **ends}
    renamed = {}
    for name, stored in plain.items():
        if _OLD_BODY.match(name):
            name = "conv_body." + name.rpartition(".")[2]
        elif (found := _OLD_CONV.match(name)) is not None and int(found[1]) in layers:
            name = f"{layers[int(found[1])]}.{found[2]}"
        renamed[_OLD_DENSE.sub(r"body.\1.rdb\2.conv\3.", name)] = stored
    return renamed


def upscale_config(names: Shapes) -> UpscaleConfig:
    """The structure, off the shapes under our names. Raises ModelUnknown or WeightFileInvalid."""
    if "body.0.rdb1.conv1.weight" in names and "conv_first.weight" in names:
        return _rrdb(names)
    if "body.0.weight" in names and "body.1.weight" in names and not any("rdb" in name for name in names.shapes):
        return _compact(names)
    return names.refuse("It is no upscale model of a known kind (ESRGAN, Real-ESRGAN, compact).")


def _rrdb(names: Shapes) -> UpscaleConfig:
    features, first_in = names.shape("conv_first.weight", 4)[:2]
    out = names.shape("conv_last.weight", 4)[0]
    doublings = sum(f"conv_up{i}.weight" in names for i in range(1, 6))
    unshuffle = max(math.isqrt(first_in // out), 1)
    if unshuffle**2 * out != first_in or 2**doublings % unshuffle:
        raise WeightFileInvalid("Its channels in and out do not fit.", file=names.file_name, channels_in=first_in, channels_out=out)
    growth = names.shape("body.0.rdb1.conv1.weight", 4)[0]
    blocks = names.count("body.{}.")
    return UpscaleConfig("rrdb", out, out, features, blocks, 2**doublings // unshuffle, growth, doublings, unshuffle)


def _compact(names: Shapes) -> UpscaleConfig:
    layers = names.count("body.{}.")
    features, channels = names.shape("body.0.weight", 4)[:2]
    last = names.shape(f"body.{layers - 1}.weight", 4)[0]
    scale = math.isqrt(last // channels)
    if scale**2 * channels != last or scale < 1 or layers % 2 == 0 or layers < 3:
        raise WeightFileInvalid("Its last layer does not fit its first.", file=names.file_name, channels_in=channels, channels_out=last)
    return UpscaleConfig("compact", channels, channels, features, layers // 2 - 1, scale)
