from __future__ import annotations

import gc
import threading
from pathlib import Path

import pytest
import torch

from comfy.device.page_lock import PageLocker
from comfy.weights.cache import WeightCache
from comfy.weights.fill import fill_slab
from comfy.weights.header import open_index
from comfy.weights.slab import Slab
from tests.fakes import PATIENCE_S, entries_of, key_of, make_file


class Cuda:
    """Registers in a list."""

    def __init__(self, refuses: bool = False) -> None:
        self.held: dict[int, int] = {}
        self.refuses = refuses

    def register(self, address: int, nbytes: int) -> None:
        if self.refuses:
            raise RuntimeError("cudaHostRegister: CUDA error 2")
        self.held[address] = nbytes

    def unregister(self, address: int) -> None:
        del self.held[address]


def cache_with(cuda: Cuda, **given: object) -> WeightCache:
    cache = WeightCache(2**20, **given)  # type: ignore[arg-type]
    cache.lock_pages = PageLocker(cuda.register, cuda.unregister)
    return cache


def test_a_slab_is_locked_while_it_lives_and_unlocked_before_its_memory_goes(tmp_path: Path) -> None:
    cuda = Cuda()
    cache = cache_with(cuda)
    path = make_file(tmp_path / "a.safetensors")
    with cache.lease(key_of(path), entries_of(open_index(path))) as slab:
        assert slab.page_locked
        assert cuda.held == {slab.flat.data_ptr(): slab.nbytes}
        view = slab.tensor("weight")
    del slab
    cache.drop_unleased()
    gc.collect()
    assert len(cuda.held) == 1  # a view is left, and with it the memory
    assert view.sum() == 15
    del view
    gc.collect()
    assert cuda.held == {}


def test_a_refusal_leaves_the_slab_pageable_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = cache_with(Cuda(refuses=True))
    path = make_file(tmp_path / "a.safetensors")
    for _ in range(2):
        with cache.lease(key_of(path), entries_of(open_index(path))) as slab:
            assert not slab.page_locked
            assert torch.equal(slab.tensor("weight"), torch.arange(6.0).view(2, 3))
    assert caplog.text.count("is not page-locked") == 1
    assert [row.page_locked for row in cache.statistics().rows] == [False]


def test_locking_runs_beside_the_read(tmp_path: Path) -> None:
    registering, reading = threading.Event(), threading.Event()

    def fill(slab: Slab) -> None:
        reading.set()
        assert registering.wait(PATIENCE_S)
        fill_slab(slab)

    cuda = Cuda()
    cache = WeightCache(2**20, fill=fill)

    def register(address: int, nbytes: int) -> None:
        registering.set()
        assert reading.wait(PATIENCE_S)
        cuda.register(address, nbytes)

    cache.lock_pages = PageLocker(register, cuda.unregister)
    path = make_file(tmp_path / "a.safetensors")
    with cache.lease(key_of(path), entries_of(open_index(path))) as slab:
        assert slab.page_locked


def test_a_read_that_fails_gives_the_lock_back(tmp_path: Path) -> None:
    cuda = Cuda()

    def fill(slab: Slab) -> None:
        raise OSError("gone")

    cache = cache_with(cuda, fill=fill)
    path = make_file(tmp_path / "a.safetensors")
    with pytest.raises(OSError, match="gone"):
        cache.acquire(key_of(path), entries_of(open_index(path)))
    gc.collect()
    assert cuda.held == {}
    cache.check()
