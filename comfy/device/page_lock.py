"""Locks the pages of slabs for CUDA: a copy to a GPU then runs at the link's speed (architecture.md: 54.7 against 9.1 GB/s).

It runs beside the read that fills the slab, so that no request waits for it later. The lock is portable: it holds for every
GPU of the process. Without it everything works, more slowly.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import torch

from comfy.units import gib
from comfy.weights.slab import Slab

log = logging.getLogger(__name__)

PORTABLE = 1  #: cudaHostRegisterPortable


def register(address: int, nbytes: int) -> None:
    """cudaHostRegister; RuntimeError with CUDA's code when it refuses."""
    code = int(torch.cuda.cudart().cudaHostRegister(address, nbytes, PORTABLE))
    if code != 0:
        raise RuntimeError(f"cudaHostRegister: CUDA error {code}")


def unregister(address: int) -> None:
    """cudaHostUnregister. Says nothing: it is called when the last view of a slab goes, also while the process ends."""
    torch.cuda.cudart().cudaHostUnregister(address)


class PageLocker:
    """What `WeightCache.lock_pages` is on a machine with CUDA."""

    def __init__(self, register: Callable[[int, int], None] = register, unregister: Callable[[int], None] = unregister) -> None:
        self._register, self._unregister = register, unregister

    def __call__(self, slab: Slab) -> Callable[[], None]:
        """Start to lock the slab's pages; the answer waits until that is done."""
        thread = threading.Thread(target=self._lock, args=(slab,), name="page-lock", daemon=True)
        thread.start()
        return thread.join

    def _lock(self, slab: Slab) -> None:
        address = slab.flat.data_ptr()
        try:
            self._register(address, slab.nbytes)
        except Exception as error:  # whatever CUDA says: the weights are there, only slower to copy
            log.warning("%s (%s) is not page-locked, its copies to a GPU are slower: %s", slab.key.file.name, gib(slab.nbytes), error)
            return
        slab.page_locked = True
        slab.before_unmap(lambda: self._unregister(address))
