"""Textual inversions: `embedding:name` in a prompt -> rows of token vectors. Gal et al. 2022, arXiv:2208.01618.

File forms: contract, models.md section 8; lookup by name: goldens README, section E.1.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from comfy.errors import WeightFileInvalid
from comfy.folders.confine import is_within
from comfy.weights.header import PICKLE_SUFFIXES, SAFETENSORS_SUFFIXES, open_index
from comfy.weights.pickles import load_pickle

ENDINGS = ("", ".safetensors", ".pt", ".bin")


def find_embedding(folders: Sequence[str], name: str, key: str) -> Tensor | None:
    """The rows (n, width) float32 of the embedding `name` for the text encoder `key` (such as clip_l), or None.

    The name may have a folder and a suffix; nothing outside `folders` is opened. Raises WeightFileInvalid for a file
    that holds no embedding.
    """
    path = embedding_file(folders, name)
    return None if path is None else read_embedding(path, key)


def embedding_file(folders: Sequence[str], name: str) -> str | None:
    """The first file called `name`, or that with one of ENDINGS, in any of `folders`, or None."""
    if not name or "\0" in name:
        return None
    for folder in folders:
        root = os.path.abspath(folder)
        for ending in ENDINGS:
            path = os.path.abspath(os.path.join(root, name + ending))
            known = path.lower().endswith((*SAFETENSORS_SUFFIXES, *PICKLE_SUFFIXES))
            if known and is_within(root, path) and os.path.isfile(path):
                return path
    return None


def read_embedding(path: str, key: str) -> Tensor:
    """The rows (n, width) of one file for the text encoder `key`. Raises WeightFileInvalid."""
    loaded: Any
    if path.lower().endswith(tuple(SAFETENSORS_SUFFIXES)):
        index = open_index(path)  # refuses a header that lies
        with open(path, "rb") as file:
            found = safetensors.torch.load(file.read())
        # the library gives tensors in an order of chance; which comes first decides the rows, so it is the file's
        loaded = {name: found[name] for name in sorted(index.tensors, key=lambda name: index.tensors[name].start)}
    else:
        loaded = load_pickle(path)
    rows = _rows(loaded, key)
    if rows is None or not rows.is_floating_point() or rows.ndim not in (1, 2) or rows.numel() == 0:
        raise WeightFileInvalid("There is no embedding in it.", file=os.path.basename(path))
    return rows.detach().reshape(-1, rows.shape[-1]).float()


def _rows(loaded: Any, key: str) -> Tensor | None:
    if isinstance(loaded, (list, tuple)):
        parts = [part for item in loaded if (part := _rows(item, key)) is not None]
        same = [part.reshape(-1, part.shape[-1]) for part in parts if part.ndim and part.shape[-1] == parts[0].shape[-1]]
        return torch.cat(same) if same else None
    if isinstance(loaded, Tensor):
        return loaded
    if not isinstance(loaded, Mapping):
        return None
    bundled = [part for name, part in loaded.items() if _is_bundled(str(name), key) and isinstance(part, Tensor) and part.ndim]
    if bundled:
        return torch.cat([part.reshape(-1, part.shape[-1]) for part in bundled if part.shape[-1] == bundled[0].shape[-1]])
    if isinstance(loaded.get("string_to_param"), Mapping):
        loaded = loaded["string_to_param"]
    if isinstance(loaded.get(key), Tensor):
        return loaded[key]
    return next((value for value in loaded.values() if isinstance(value, Tensor)), None)


def _is_bundled(name: str, key: str) -> bool:
    """Whether a tensor of a LoRA file is an embedding for the text encoder `key`: `bundle_emb.<name>.<key>` or `….string_to_param.*`."""
    return name.startswith("bundle_emb.") and name.endswith((f".{key}", ".string_to_param.*"))
