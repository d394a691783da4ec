"""The header of a safetensors file, read strictly, and `open_index()`, the one door to the index of any weight file.

Format: 8 bytes little-endian header length, a JSON object, then the tensors' bytes without gaps. A header may lie, by
accident (a broken download) or by intent: every number in it is checked against the file before anyone uses it.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, NoReturn

import torch

from comfy.errors import WeightFileInvalid
from comfy.weights.files import FileIdentity, FileIndex, TensorInfo, expect_unchanged, open_file
from comfy.weights.pickles import load_pickle, read_pickle, read_pickle_index

__all__ = [
    "PICKLE_SUFFIXES",
    "SAFETENSORS_SUFFIXES",
    "FileIdentity",
    "FileIndex",
    "TensorInfo",
    "load_pickle",
    "open_index",
    "read_index",
    "read_pickle",
]

SAFETENSORS_SUFFIXES = (".safetensors", ".sft")
PICKLE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")

#: the format's own limit for the JSON part
MAX_HEADER_BYTES = 100_000_000
MAX_DIMENSIONS = 16

DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "U16": torch.uint16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}
for _name, _attribute in (("F8_E8M0", "float8_e8m0fnu"), ("F4", "float4_e2m1fn_x2")):  # younger than the oldest torch we run on
    if hasattr(torch, _attribute):
        DTYPES[_name] = getattr(torch, _attribute)


class _Lie(Exception):
    """A statement of the header that is not true; `tensor` is the one it is about."""

    def __init__(self, what: str, tensor: str | None = None, **facts: Any) -> None:
        super().__init__(what)
        self.what, self.facts = what, facts if tensor is None else {"tensor": tensor, **facts}


def read_index(path: str | os.PathLike[str]) -> FileIndex:
    """The index of a safetensors file, each statement of its header checked.

    Raises WeightFileMissing, or WeightFileInvalid with the file's name, the tensor and what is wrong.
    """
    identity = FileIdentity.of(path)
    descriptor = open_file(identity)
    try:
        start, header = _read_header(descriptor, identity.size)
        expect_unchanged(descriptor, identity)
        metadata, tensors = _parse(header, start, identity.size)
    except _Lie as lie:
        raise WeightFileInvalid(lie.what, file=identity.name, **lie.facts) from None
    except OSError as error:
        raise WeightFileInvalid("It cannot be read.", file=identity.name, reason=os.strerror(error.errno or 0)) from error
    finally:
        os.close(descriptor)
    return FileIndex(identity, tensors, metadata)


def _read_header(descriptor: int, size: int) -> tuple[int, bytes]:
    """(offset of the first tensor byte, the JSON bytes)."""
    head = os.read(descriptor, 8)
    if len(head) < 8:
        raise _Lie("The file is too short for a header.", size=size)
    length = int.from_bytes(head, "little")
    if length > MAX_HEADER_BYTES:
        raise _Lie("The header's length is not sane; this is probably no safetensors file.", header_bytes=length)
    if length < 2 or 8 + length > size:
        raise _Lie("The header does not fit in the file.", header_bytes=length, size=size)
    parts, missing = [], length
    while missing:
        part = os.read(descriptor, missing)
        if not part:
            raise _Lie("The file ends inside its header.", header_bytes=length)
        parts.append(part)
        missing -= len(part)
    return 8 + length, b"".join(parts)


def _parse(header: bytes, start: int, size: int) -> tuple[dict[str, str], dict[str, TensorInfo]]:
    if header[:1] != b"{":
        raise _Lie("The header is not a JSON object.")
    try:
        parsed = json.loads(header.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError):  # bad UTF-8 and over-long numbers are ValueErrors too
        raise _Lie("The header is not valid JSON.") from None
    metadata = parsed.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _Lie("The header's __metadata__ is not a map of strings.")
    tensors = {name: _tensor(name, entry, start) for name, entry in parsed.items()}
    _check_places(tensors.values(), start, size)
    return metadata, tensors


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise _Lie("The header names a member twice.", tensor=name[:200])
        members[name] = value
    return members


def _no_constant(text: str) -> NoReturn:
    raise ValueError(text)


def _tensor(name: str, entry: Any, start: int) -> TensorInfo:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _Lie("The entry must have exactly dtype, shape and data_offsets.", tensor=name)
    dtype = DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise _Lie("The dtype is unknown.", tensor=name, dtype=str(entry["dtype"])[:40])
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _counts(shape) or len(shape) > MAX_DIMENSIONS:
        raise _Lie("The shape is not a list of sizes.", tensor=name)
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _Lie("The data_offsets are not a pair of ascending offsets.", tensor=name)
    if entry["dtype"] == "F4":  # torch holds two of these in one element
        if not shape or shape[-1] % 2:
            raise _Lie("A 4-bit tensor needs an even last dimension.", tensor=name)
        shape = [*shape[:-1], shape[-1] // 2]
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes != offsets[1] - offsets[0]:
        raise _Lie(
            "The shape and dtype do not give the length of the data.", tensor=name, expected_bytes=nbytes, bytes=offsets[1] - offsets[0]
        )
    return TensorInfo(name, dtype, tuple(shape), start + offsets[0], nbytes)


def _counts(values: Any) -> bool:
    """Whether `values` is a list of whole numbers that fit in a signed 64-bit integer, 0 or more."""
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _check_places(tensors: Iterable[TensorInfo], start: int, size: int) -> None:
    """Tensors follow each other from the first data byte to the last one of the file: no gap, no overlap, no rest."""
    end = start
    for info in sorted(tensors, key=lambda info: (info.start, info.nbytes)):
        if info.start != end:
            raise _Lie("The tensor overlaps another." if info.start < end else "There is a gap before the tensor.", tensor=info.name)
        end += info.nbytes
        if end > size:
            raise _Lie("The tensor reaches beyond the end of the file; it was cut off.", tensor=info.name, size=size, needed_bytes=end)
    if end != size:
        raise _Lie("The file has bytes that belong to no tensor.", size=size, expected_size=end)


class _Indexes:
    """The indexes asked for last, by file identity: a file that changed is read again."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        self._known: OrderedDict[FileIdentity, FileIndex] = OrderedDict()

    def get(self, identity: FileIdentity) -> FileIndex | None:
        with self._lock:
            index = self._known.get(identity)
            if index is not None:
                self._known.move_to_end(identity)
            return index

    def put(self, index: FileIndex) -> None:
        with self._lock:
            self._known[index.identity] = index
            while len(self._known) > self._keep:
                self._known.popitem(last=False)


_indexes = _Indexes(keep=64)


def open_index(path: str | os.PathLike[str]) -> FileIndex:
    """The index of a weight file of any kind that we read, kept while the file stays the same. Never executes anything.

    Two threads that ask for a new file at once may both read its header; both get equal answers.
    Raises WeightFileMissing or WeightFileInvalid.
    """
    identity = FileIdentity.of(path)
    index = _indexes.get(identity)
    if index is None:
        suffix = os.path.splitext(identity.path)[1].lower()
        if suffix in SAFETENSORS_SUFFIXES:
            index = read_index(path)
        elif suffix in PICKLE_SUFFIXES:
            index = read_pickle_index(path)
        else:
            raise WeightFileInvalid(
                "Its suffix is none that we read.", file=identity.name, suffixes=[*SAFETENSORS_SUFFIXES, *PICKLE_SUFFIXES]
            )
        _indexes.put(index)
    return index
