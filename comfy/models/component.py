"""One network of one file: what a handle holds instead of weights."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

import comfy.ops
from comfy.device.context import DeviceContext
from comfy.errors import WeightFileInvalid
from comfy.ldm.clip_vision import ClipVisionConfig
from comfy.ldm.models.autoencoder import AutoencodingEngine
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.ldm.t2i_adapter import AdapterConfig
from comfy.ldm.tiny import TinyConfig, build_tiny
from comfy.models.control_config import ControlConfig
from comfy.models.family import UNetConfig, VaeConfig
from comfy.models.layouts import Place, places
from comfy.text_encoders.clip_text import ClipTextConfig, ClipTextModel
from comfy.weights.files import FileIdentity, FileIndex, TensorInfo
from comfy.weights.header import open_index
from comfy.weights.plan import SlabEntry, SlabKey

Config = UNetConfig | VaeConfig | ClipTextConfig | TinyConfig | ControlConfig | ClipVisionConfig | AdapterConfig
#: parameters that a file may lack without a warning
OPTIONAL = ("logit_scale", "text_projection.weight")


@dataclass(frozen=True)
class Component:
    """A frozen, picklable description of one network of one file: valid on any lane, holds no weights.

    kind     names it in slabs and logs: denoiser, clip_l, vae
    prefix   of its tensors in the file
    insert   what run-time names have in front of the rest of the file's name (`text_model.` for old files)
    config   structure of the network
    dtypes   in which it may compute, best first
    layout   of the file's names: see `layouts`
    storage  dtype to keep the weights in, if not the one to compute in
    convert  keep all weights in `storage`, not only those that the file has in it
    """

    file: FileIdentity
    kind: str
    prefix: str
    config: Config
    dtypes: tuple[torch.dtype, ...]
    insert: str = ""
    layout: str = ""
    storage: torch.dtype | None = None
    convert: bool = False

    def build(self) -> nn.Module:
        """The network without weights; call it under `torch.device("meta")`."""
        return build_network(self.config, comfy.ops.disable_weight_init if self.storage is None else comfy.ops.manual_cast)

    def key(self, dtype: torch.dtype) -> SlabKey:
        """The slab's key when the network runs in `dtype`. The file alone decides what a kind of it consists of."""
        label = str(dtype).removeprefix("torch.")
        if self.storage is not None:
            label = f"{str(self.storage).removeprefix('torch.')}{'' if self.convert else ' as stored'}, {label}"
        return SlabKey(self.file, self.kind, label)

    def entries(self, dtype: torch.dtype, index: FileIndex | None = None) -> list[SlabEntry]:
        """The slab's tensors: those of the file that the network has, in the file's order.

        Raises WeightFileInvalid when a tensor does not have the shape that the rest of the file calls for.
        """
        index = self._index() if index is None else index
        wanted = network_shapes(self.config)
        entries = []
        sources = self.sources(index)
        for name, (info, place) in sources.items():
            if name not in wanted:
                continue
            shape = _fitted(info, place.shape(info.shape), wanted[name], self.file.name)
            scale = sources.get(name.removesuffix("weight") + "scale_weight") if name.endswith(".weight") else None
            kept = self.storage if scale is None and (self.convert or info.dtype == self.storage) else None
            entry = SlabEntry(name, info, kept or dtype, place.rows, place.transpose, shape, scale=None if scale is None else scale[0])
            entries.append(entry)
        return entries

    def sources(self, index: FileIndex) -> dict[str, tuple[TensorInfo, Place]]:
        """Run-time name -> tensor of the file and the part of it, whether the network has it or not."""
        found = {self.insert + name[len(self.prefix) :]: info for name, info in index.tensors.items() if name.startswith(self.prefix)}
        shapes = {name: info.shape for name, info in found.items()}
        return {name: (found[place.source], place) for name, place in places(self.layout, shapes, self.config).items()}

    def stored_dtypes(self) -> dict[str, torch.dtype]:
        """Run-time name -> the file's dtype; float16 for weights that the file has in 8 bit with a scale."""
        sources = self.sources(self._index())
        found = {}
        for name, (info, _) in sources.items():
            scaled = name.endswith(".weight") and name.removesuffix("weight") + "scale_weight" in sources
            found[name] = torch.float16 if scaled else info.dtype
        return found

    def module(self, ctx: DeviceContext, variant: Hashable = (), patch: Callable[[str, Tensor], Tensor] | None = None) -> nn.Module:
        """The network on `ctx`'s device, brought there when it is not; see `ResidentModels.module`."""
        dtype = ctx.run_dtype(self.dtypes)
        return ctx.resident.module(
            self.key(dtype),
            lambda: self.entries(dtype),
            self.build,
            self.file.name,
            variant=variant,
            patch=patch,
            optional=OPTIONAL,
        )

    def nbytes(self, dtype: torch.dtype) -> int:
        """Bytes of its weights in `dtype`."""
        kept = self.storage if self.storage is not None else dtype
        return sum(_count(shape) for shape in network_shapes(self.config).values()) * kept.itemsize

    def _index(self) -> FileIndex:
        index = open_index(self.file.path)
        if index.identity != self.file:
            raise WeightFileInvalid("It was replaced since it was loaded; run the prompt again.", file=self.file.name)
        return index


def build_network(config: Config, operations: Any = comfy.ops.disable_weight_init) -> nn.Module:
    """The network of this structure, on torch's current device. `operations`: the layer classes of a denoiser."""
    if isinstance(config, UNetConfig):
        return UNetModel(**asdict(config), operations=operations)
    if isinstance(config, VaeConfig):
        sizes: dict[str, Any] = {name: value for name, value in asdict(config).items() if name != "use_quant"}
        return AutoencodingEngine(sizes, config.z_channels, config.use_quant)
    if isinstance(config, TinyConfig):
        return build_tiny(config)
    if isinstance(config, ControlConfig | ClipVisionConfig | AdapterConfig):
        return config.build()
    return ClipTextModel(config)


@functools.lru_cache(maxsize=32)
def network_shapes(config: Config) -> Mapping[str, tuple[int, ...]]:
    """Name -> shape of every parameter of the network."""
    with torch.device("meta"):
        network = build_network(config)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _fitted(info: TensorInfo, shape: tuple[int, ...], wanted: tuple[int, ...], file_name: str) -> tuple[int, ...] | None:
    """None when the tensor has the shape `wanted`, `wanted` when it differs by axes of length 1 alone."""
    if shape == wanted:
        return None
    if [n for n in shape if n != 1] == [n for n in wanted if n != 1] and info.dtype.is_floating_point:
        return wanted
    raise WeightFileInvalid(
        "A tensor does not fit the model.", file=file_name, tensor=info.name, shape=list(info.shape), expected_shape=list(wanted)
    )


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for n in shape:
        count *= n
    return count
