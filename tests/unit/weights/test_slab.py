import gc
import os
import pickle
import weakref
from pathlib import Path

import pytest
import torch

from comfy.errors import HostMemoryExhausted, WeightFileInvalid, WeightFileMissing
from comfy.weights import fill, slab
from comfy.weights.fill import fill_slab
from comfy.weights.header import open_index
from comfy.weights.slab import ALIGNMENT, Slab, SlabEntry, SlabKey, plan_slab
from tests.fakes import entries_of, key_of, make_file

MATRIX = torch.arange(12.0).view(6, 2)


def read(path, entries, **key):
    slab = Slab(key_of(path, **key), plan_slab(key_of(path, **key), entries))
    fill_slab(slab)
    return slab


@pytest.mark.parametrize("chunk_bytes", [5 * 8, 2**24])
def test_tensors_arrive_as_stored_and_aligned(tmp_path, monkeypatch, chunk_bytes):
    monkeypatch.setattr(fill, "CHUNK_BYTES", chunk_bytes)  # a small one reads in several threads
    tensors = {
        "a": torch.randn(7, 3),
        "empty": torch.zeros(0, 4),
        "half": torch.randn(33).half(),
        "scalar": torch.tensor(3, dtype=torch.int64),
        "fp8": torch.randn(5).to(torch.float8_e4m3fn),
        "flags": torch.tensor([True, False]),
    }
    path = make_file(tmp_path / "a.safetensors", tensors)
    slab = read(path, entries_of(open_index(path)))
    assert sorted(slab.names()) == sorted(tensors) == sorted(slab.original_names())
    assert slab.nbytes % ALIGNMENT == 0
    for name, tensor in tensors.items():
        found = slab.tensor(name)
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found.float(), tensor.float())
        assert (found.data_ptr() - slab.flat.data_ptr()) % ALIGNMENT == 0


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float64, torch.uint8])
@pytest.mark.parametrize("chunk_bytes", [24, 2**24])
def test_other_dtypes_are_converted_once_here(tmp_path, monkeypatch, stored, chunk_bytes):
    monkeypatch.setattr(fill, "SCRATCH_BYTES", chunk_bytes)
    monkeypatch.setattr(fill, "CHUNK_BYTES", 64)  # several threads
    source = torch.arange(40.0).view(8, 5).to(stored)
    path = make_file(tmp_path / "a.safetensors", {"w": source})
    slab = read(path, entries_of(open_index(path), torch.float32), dtype="float32")
    assert slab.tensor("w").dtype == torch.float32
    assert torch.equal(slab.tensor("w"), source.float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("chunk_bytes", [16, 2**24])
def test_rows_transposes_and_shapes_are_views_of_one_region(tmp_path, monkeypatch, dtype, chunk_bytes):
    monkeypatch.setattr(fill, "SCRATCH_BYTES", chunk_bytes)
    monkeypatch.setattr(fill, "CHUNK_BYTES", 64)
    path = make_file(tmp_path / "a.safetensors", {"qkv": MATRIX, "proj": MATRIX, "conv": MATRIX})
    info = open_index(path).tensors
    entries = [
        SlabEntry("q", info["qkv"], dtype, rows=(0, 2)),
        SlabEntry("k", info["qkv"], dtype, rows=(2, 4)),
        SlabEntry("v", info["qkv"], dtype, rows=(4, 6), shape=(4,)),
        SlabEntry("turned", info["proj"], dtype, transpose=True),
        SlabEntry("turned_rows", info["proj"], dtype, rows=(1, 3), transpose=True),
        SlabEntry("kernel", info["conv"], dtype, shape=(6, 2, 1, 1)),
    ]
    slab = read(path, entries)
    expected = {"q": MATRIX[:2], "k": MATRIX[2:4], "v": MATRIX[4:].reshape(4), "turned": MATRIX.t(), "turned_rows": MATRIX[1:3].t()}
    expected["kernel"] = MATRIX.view(6, 2, 1, 1)
    for name, tensor in expected.items():
        assert torch.equal(slab.tensor(name), tensor.to(dtype)), name
    assert slab.tensor("turned").is_contiguous()
    for name in ("qkv", "proj", "conv"):
        assert torch.equal(slab.original(name), MATRIX.to(dtype)), name
    assert slab.tensor("q").data_ptr() == slab.original("qkv").data_ptr()
    assert len(slab.plan.regions) == 3


def test_two_names_of_one_tensor_share_its_bytes(tmp_path):
    path = make_file(tmp_path / "a.safetensors")
    info = open_index(path).tensors["weight"]
    slab = read(path, [SlabEntry("shared", info, info.dtype), SlabEntry("embed", info, info.dtype)])
    assert slab.tensor("shared").data_ptr() == slab.tensor("embed").data_ptr()
    assert slab.nbytes == ALIGNMENT


def test_a_copy_of_the_bytes_has_the_same_views(tmp_path):
    path = make_file(tmp_path / "a.safetensors", {"a": MATRIX, "b": MATRIX.half()})
    slab = read(path, entries_of(open_index(path)))
    copied = slab.views(slab.flat.clone())
    assert all(torch.equal(copied[name], slab.tensor(name)) for name in slab.names())
    assert copied["a"].data_ptr() != slab.tensor("a").data_ptr()


BAD = {
    "rows beyond": {"rows": (4, 7)},
    "rows reversed": {"rows": (3, 2)},
    "negative rows": {"rows": (-1, 2)},
    "other count": {"shape": (5, 2)},
    "other count of rows": {"rows": (0, 2), "shape": (12,)},
    "transposed rows in a shape": {"rows": (0, 2), "shape": (4,), "transpose": True},
}


@pytest.mark.parametrize("bad", BAD)
def test_an_entry_that_its_source_cannot_give_names_the_tensor(tmp_path, bad):
    path = make_file(tmp_path / "a.safetensors", {"w": MATRIX, "vector": MATRIX.view(-1)})
    info = open_index(path).tensors
    with pytest.raises(WeightFileInvalid) as caught:
        plan_slab(key_of(path), [SlabEntry("x", info["w"], torch.float32, **BAD[bad])])
    assert caught.value.facts["tensor"] == "w"
    with pytest.raises(WeightFileInvalid, match="matrix"):
        plan_slab(key_of(path), [SlabEntry("x", info["vector"], torch.float32, transpose=True)])


def test_two_tensors_of_one_name_are_refused(tmp_path):
    path = make_file(tmp_path / "a.safetensors", {"a": MATRIX, "b": MATRIX})
    info = open_index(path).tensors
    with pytest.raises(WeightFileInvalid, match="same run-time name"):
        plan_slab(key_of(path), [SlabEntry("x", info["a"], torch.float32), SlabEntry("x", info["b"], torch.float32)])


def test_a_file_cut_off_while_it_is_read_is_a_typed_error(tmp_path, monkeypatch):
    path = make_file(tmp_path / "a.safetensors", {"a": torch.zeros(1000), "b": torch.zeros(1000)})
    entries, real = entries_of(open_index(path)), fill._read_at

    def cut_then_read(descriptor, target, start):
        os.truncate(path, 4096)
        return real(descriptor, target, start)

    monkeypatch.setattr(fill, "_read_at", cut_then_read)
    with pytest.raises(WeightFileInvalid, match="cut off") as caught:
        read(path, entries)
    assert caught.value.facts["tensor"] in ("a", "b")


def test_a_file_rewritten_while_it_is_read_is_a_typed_error(tmp_path, monkeypatch):
    path = make_file(tmp_path / "a.safetensors")
    entries, real = entries_of(open_index(path)), fill._read_at

    def rewrite_then_read(descriptor, target, start):
        os.utime(path, ns=(1, 1))
        return real(descriptor, target, start)

    monkeypatch.setattr(fill, "_read_at", rewrite_then_read)
    with pytest.raises(WeightFileInvalid, match="replaced"):
        read(path, entries)


def test_a_file_replaced_or_removed_since_its_index_is_a_typed_error(tmp_path):
    path = make_file(tmp_path / "a.safetensors")
    key, entries = key_of(path), entries_of(open_index(path))
    make_file(tmp_path / "b.safetensors").replace(path)
    with pytest.raises(WeightFileInvalid, match="replaced"):
        fill_slab(Slab(key, plan_slab(key, entries)))
    path.unlink()
    with pytest.raises(WeightFileMissing):
        fill_slab(Slab(key, plan_slab(key, entries)))


def test_the_mapping_goes_with_the_last_view(tmp_path, monkeypatch):
    mappings, real = [], torch.frombuffer

    def remember(mapping, **kwargs):
        mappings.append(weakref.ref(mapping))
        return real(mapping, **kwargs)

    monkeypatch.setattr(torch, "frombuffer", remember)
    path = make_file(tmp_path / "a.safetensors")
    slab = read(path, entries_of(open_index(path)))
    view = slab.tensor("weight")[1]
    del slab
    gc.collect()
    assert mappings[0]() is not None
    assert torch.equal(view, torch.tensor([3.0, 4.0, 5.0]))
    del view
    gc.collect()
    assert mappings[0]() is None


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the system has no memfd")
def test_the_memory_is_a_shared_mapping_of_a_memfd():
    _mapping, flat = slab.allocate(100, "my model")
    maps = Path("/proc/self/maps").read_text().splitlines()
    (line,) = [text for text in maps if text.startswith(f"{flat.data_ptr():x}-")]
    assert "rw-s" in line
    assert "memfd:weights:my model" in line


def test_without_memfd_the_memory_is_anonymous(monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    _mapping, flat = slab.allocate(100)
    assert flat.fill_(3).sum() == 300


def test_memory_that_the_system_does_not_give_is_a_typed_error():
    with pytest.raises(HostMemoryExhausted):
        slab.allocate(2**62)


def test_slab_tensors_are_ordinary_tensors_also_when_made_in_inference_mode(tmp_path):
    path = make_file(tmp_path / "a.safetensors")
    with torch.inference_mode():
        slab = read(path, entries_of(open_index(path), torch.float16))
        made = slab.tensor("weight")
    assert not made.is_inference()
    assert not slab.views()["weight"].is_inference()
    assert (made + 1).dtype == torch.float16


def test_keys_and_entries_pickle(tmp_path):
    path = make_file(tmp_path / "a.safetensors")
    key = SlabKey(open_index(path).identity, "vae", "float16", "plain")
    entry = SlabEntry("x", open_index(path).tensors["weight"], torch.float16, rows=(0, 1), shape=(3,))
    assert pickle.loads(pickle.dumps((key, entry))) == (key, entry)
    assert hash(pickle.loads(pickle.dumps(key))) == hash(key)
    assert pickle.loads(pickle.dumps(open_index(path))).tensors == open_index(path).tensors
