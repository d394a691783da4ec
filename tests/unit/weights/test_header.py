import json
import os
import struct

import pytest
import torch

from comfy.errors import WeightFileInvalid, WeightFileMissing
from comfy.weights import header
from comfy.weights.header import FileIdentity, open_index, read_index
from tests.fakes import make_file, make_raw_file

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def test_index_gives_the_place_of_every_tensor(tmp_path):
    tensors = {"a": torch.arange(6.0).view(2, 3), "empty": torch.zeros(0, 4), "scalar": torch.tensor(2.5, dtype=torch.float16)}
    path = make_file(tmp_path / "a.safetensors", tensors, {"modelspec.title": "T"})
    index = read_index(path)
    raw = path.read_bytes()
    assert index.metadata == {"modelspec.title": "T"}
    assert index.identity == FileIdentity.of(path)
    assert set(index.tensors) == set(tensors)
    for name, tensor in tensors.items():
        info = index.tensors[name]
        assert (info.name, info.dtype, info.shape) == (name, tensor.dtype, tuple(tensor.shape))
        assert raw[info.start : info.start + info.nbytes] == tensor.numpy().tobytes()


@pytest.mark.parametrize("name", sorted(header.DTYPES))
def test_every_dtype_of_the_format_is_read(tmp_path, name):
    dtype = header.DTYPES[name]
    size = 2 * dtype.itemsize
    shape = [1, 4] if name == "F4" else [1, 2]
    path = make_raw_file(tmp_path / "a.safetensors", {"w": {"dtype": name, "shape": shape, "data_offsets": [0, size]}}, bytes(size))
    info = read_index(path).tensors["w"]
    assert (info.dtype, info.shape, info.nbytes) == (dtype, (1, 2), size)


def _entry(**changes):
    return {"w": {**F32, **changes}}


LIES = {
    "no header": (b"", b"", None),
    "not JSON": (b"{not json", b"", None),
    "not an object": (b'[1, 2, "abcdefg"]', b"", None),
    "not UTF-8": (b'{"\xff\xfe": 1}', b"", None),
    "deep nesting": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"", None),
    "longer than the file": ({"w": F32}, bytes(8), 10_000),
    "absurd length": ({"w": F32}, bytes(8), 2**63),
    "cut header": (json.dumps({"w": F32}).encode()[:-5], b"", None),
    "entry is no object": ({"w": [0, 8]}, bytes(8), None),
    "entry without dtype": ({"w": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8), None),
    "entry with more": (_entry(strides=[1]), bytes(8), None),
    "unknown dtype": (_entry(dtype="Q4_K"), bytes(8), None),
    "dtype is no text": (_entry(dtype=["F32"]), bytes(8), None),
    "shape is no list": (_entry(shape=2), bytes(8), None),
    "negative size": (_entry(shape=[-1, -2]), bytes(8), None),
    "fractional size": (_entry(shape=[2.0]), bytes(8), None),
    "boolean size": (_entry(shape=[True, 2]), bytes(8), None),
    "huge size": (_entry(shape=[2**64]), bytes(8), None),
    "too many dimensions": (_entry(shape=[1] * 40 + [2]), bytes(8), None),
    "offsets reversed": (_entry(data_offsets=[8, 0]), bytes(8), None),
    "offsets of three": (_entry(data_offsets=[0, 4, 8]), bytes(8), None),
    "negative offset": (_entry(data_offsets=[-8, 0]), bytes(8), None),
    "NaN offset": (b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[NaN,8]}}', bytes(8), None),
    "shape too big for its data": (_entry(shape=[3]), bytes(8), None),
    "shape too small for its data": (_entry(shape=[1]), bytes(8), None),
    "data cut off": ({"w": F32}, bytes(7), None),
    "bytes too many": ({"w": F32}, bytes(9), None),
    "no tensors, but bytes": ({}, bytes(4), None),
    "overlap": ({"a": F32, "b": {**F32, "data_offsets": [4, 12]}}, bytes(12), None),
    "same place twice": ({"a": F32, "b": F32}, bytes(8), None),
    "gap": ({"a": F32, "b": {**F32, "data_offsets": [12, 20]}}, bytes(20), None),
    "gap at the start": (_entry(data_offsets=[4, 12]), bytes(12), None),
    "name twice": (b'{"w":' + json.dumps(F32).encode() + b',"w":' + json.dumps(F32).encode() + b"}", bytes(8), None),
    "metadata of numbers": ({"__metadata__": {"a": 1}, "w": F32}, bytes(8), None),
    "metadata no object": ({"__metadata__": "a", "w": F32}, bytes(8), None),
    "odd 4-bit tensor": ({"w": {"dtype": "F4", "shape": [3], "data_offsets": [0, 2]}}, bytes(2), None),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_header_is_a_typed_error_that_names_the_file(tmp_path, lie):
    head, data, claimed = LIES[lie]
    path = make_raw_file(tmp_path / "liar.safetensors", head, data, claimed)
    with pytest.raises(WeightFileInvalid) as caught:
        read_index(path)
    assert caught.value.facts["file"] == "liar.safetensors"
    assert caught.value.detail
    assert str(tmp_path) not in str(caught.value)


def test_the_error_names_the_tensor(tmp_path):
    path = make_raw_file(tmp_path / "a.safetensors", _entry(shape=[3]), bytes(8))
    with pytest.raises(WeightFileInvalid) as caught:
        read_index(path)
    assert caught.value.facts["tensor"] == "w"
    assert (caught.value.facts["expected_bytes"], caught.value.facts["bytes"]) == (12, 8)


@pytest.mark.parametrize("content", [b"", b"abc", struct.pack("<Q", 5)])
def test_a_file_too_short_for_a_header_is_refused(tmp_path, content):
    path = tmp_path / "short.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightFileInvalid):
        read_index(path)


def test_missing_files_folders_and_odd_names_are_typed_errors(tmp_path):
    with pytest.raises(WeightFileMissing):
        open_index(tmp_path / "nothing.safetensors")
    with pytest.raises(WeightFileMissing):
        open_index(make_file(tmp_path / "file.safetensors") / "below.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    os.mkfifo(tmp_path / "pipe.safetensors")
    for name in ("folder.safetensors", "pipe.safetensors", "null\0byte.safetensors", "x" * 4000):
        with pytest.raises(WeightFileInvalid):
            open_index(tmp_path / name)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(WeightFileInvalid, match="suffix"):
        open_index(tmp_path / "model.gguf")


def test_an_index_is_read_once_for_each_state_of_the_file(tmp_path, monkeypatch):
    reads = []
    monkeypatch.setattr(header, "read_index", lambda path: reads.append(path) or read_index(path))
    path = make_file(tmp_path / "a.safetensors")
    first = open_index(path)
    assert open_index(str(path)) is first
    assert len(reads) == 1
    make_file(tmp_path / "new.safetensors", {"other": torch.zeros(3)}).replace(path)
    assert set(open_index(path).tensors) == {"other"}
    assert len(reads) == 2


def test_a_file_that_is_replaced_between_stat_and_open_is_noticed(tmp_path, monkeypatch):
    path = make_file(tmp_path / "a.safetensors")
    old = FileIdentity.of(path)
    make_file(tmp_path / "b.safetensors").replace(path)
    monkeypatch.setattr(header.FileIdentity, "of", classmethod(lambda cls, path: old))
    with pytest.raises(WeightFileInvalid, match="replaced"):
        read_index(path)
