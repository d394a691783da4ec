"""Weights in torch pickles (`.ckpt .pt .pth .bin .pkl`), read without executing anything that the file names.

torch's restricted unpickler knows tensors, containers and numbers; any other global in the file is refused. Where the
file is a zip archive (every torch since 1.6), its tensors lie in it uncompressed: their places are taken from the archive,
so that a slab is filled from the file as it is from a safetensors file, without a second copy in memory.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from typing import Any

import torch

from comfy.errors import WeightFileInvalid
from comfy.weights.files import FileIdentity, FileIndex, TensorInfo

#: names under which files hold their state dict beside other things; the last three are those of upscale models
WRAPPERS = ("state_dict", "params_ema", "params-ema", "params")


def load_pickle(path: str | os.PathLike[str]) -> Any:
    """The pickled object with its tensors in RAM on the CPU, whatever device they were saved from.

    Raises WeightFileMissing, or WeightFileInvalid for a broken file and for one that wants more than tensors,
    containers, strings and numbers.
    """
    identity = FileIdentity.of(path)
    _refuse_compressed(identity)
    return _load(identity)


def read_pickle(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """(tensors by name, plain values beside them as strings), the state dict unwrapped (contract: models.md section 1).

    The tensors are dense and on the CPU. Raises as `load_pickle` does.
    """
    state, metadata = _unwrap(load_pickle(path), FileIdentity.of(path))
    return {name: value.detach() for name, value in _tensors(state)}, metadata


def read_pickle_index(path: str | os.PathLike[str]) -> FileIndex:
    """The index of a torch pickle. No tensor is read when the file is a zip archive. Raises as `load_pickle` does."""
    identity = FileIdentity.of(path)
    archive = _refuse_compressed(identity)
    state, metadata = _unwrap(_load_without_data(identity) if archive else _load(identity), identity)
    tensors = {}
    for name, value in _tensors(state):
        nbytes = value.numel() * value.dtype.itemsize
        start = _place(value) if archive else -1
        if start + nbytes > identity.size:
            raise WeightFileInvalid("The tensor reaches beyond the end of the file.", file=identity.name, tensor=name)
        tensors[name] = TensorInfo(name, value.dtype, tuple(value.shape), start, nbytes)
    return FileIndex(identity, tensors, metadata)


def _load(identity: FileIdentity) -> Any:
    try:
        return torch.load(identity.path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # the unpickler raises whatever the bytes lead it to
        raise _refusal(identity, error) from error


def _load_without_data(identity: FileIdentity) -> Any:
    """The object with tensors that have shapes, dtypes and places in the archive, but no data."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # costs a second of imports, and few files are pickles

    try:
        with FakeTensorMode():
            return torch.load(identity.path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _refusal(identity, error) from error


def _refusal(identity: FileIdentity, error: Exception) -> WeightFileInvalid:
    text = str(error)
    unsafe = "weights_only" in text.lower() or "unsupported global" in text.lower()
    detail = (
        "The pickle asks for code that we never run; convert the file to safetensors."
        if unsafe
        else "The pickle is broken or is no file of torch."
    )
    return WeightFileInvalid(detail, file=identity.name, reason=f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"[:300])


def _refuse_compressed(identity: FileIdentity) -> bool:
    """Whether the file is a zip archive whose bytes are tensors as they lie there (not those of a big-endian machine).

    Raises WeightFileInvalid for one with compressed members, which torch never writes: a small file could fill the RAM.
    """
    try:
        if not zipfile.is_zipfile(identity.path):
            return False
        with zipfile.ZipFile(identity.path) as archive:
            members = archive.infolist()
            order = [member for member in members if member.filename.endswith("/byteorder") and member.file_size < 16]
            little = all(archive.read(member) == b"little" for member in order)
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise _refusal(identity, error) from error
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise WeightFileInvalid("The archive is compressed; torch never writes such files.", file=identity.name)
    return little


def _unwrap(loaded: Any, identity: FileIdentity) -> tuple[Mapping[str, Any], dict[str, str]]:
    if not isinstance(loaded, Mapping):
        raise WeightFileInvalid("The pickle holds no dictionary of tensors.", file=identity.name, found=type(loaded).__name__)
    metadata = {str(name): str(value) for name, value in loaded.items() if isinstance(value, str | int | float)}
    for wrapper in WRAPPERS:
        inner = loaded.get(wrapper)
        if isinstance(inner, Mapping):
            return inner, metadata
    if len(loaded) == 1:
        (only,) = loaded.values()
        if isinstance(only, Mapping):
            return only, metadata
    return loaded, metadata


def _tensors(state: Mapping[str, Any]) -> list[tuple[str, torch.Tensor]]:
    return [(str(name), value) for name, value in state.items() if isinstance(value, torch.Tensor) and value.layout == torch.strided]


def _place(value: torch.Tensor) -> int:
    """Offset of a tensor's dense bytes in the archive, -1 when it has none (strides, an archive without places)."""
    offset = getattr(value.untyped_storage(), "_checkpoint_offset", None)
    if not isinstance(offset, int) or not value.is_contiguous() or value.is_quantized or value.is_conj() or value.is_neg():
        return -1
    return offset + int(value.storage_offset()) * value.dtype.itemsize
