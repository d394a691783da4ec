"""A whole weight file as a dict of tensors, for custom nodes that do their own loading."""

from __future__ import annotations

from pathlib import Path

import torch

from comfy.weights.fill import fill_slab
from comfy.weights.header import SAFETENSORS_SUFFIXES, open_index
from comfy.weights.pickles import read_pickle
from comfy.weights.plan import SlabEntry, SlabKey, plan_slab
from comfy.weights.slab import Slab


def read_tensors(path: Path, device: torch.device | None = None) -> tuple[dict[str, torch.Tensor], dict[str, str] | None]:
    """(tensors by name in the file's dtypes, metadata or None). The memory belongs to the caller alone.

    Safetensors are read by the server's own reader into one private slab, which lives as long as one of its tensors.
    Raises WeightFileMissing, WeightFileInvalid.
    """
    if path.suffix.lower() in SAFETENSORS_SUFFIXES:
        index = open_index(path)
        key = SlabKey(index.identity, "file")
        slab = Slab(key, plan_slab(key, [SlabEntry(name, info, info.dtype) for name, info in index.tensors.items()]))
        fill_slab(slab)
        tensors, metadata = {name: slab.tensor(name) for name in index.tensors}, dict(index.metadata)
    else:
        tensors, metadata = read_pickle(path)
    if device is not None:
        tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    return tensors, metadata or None
