"""Files -> slabs: parallel positioned reads, straight into place where the stored form is the run-time form.

The file is never mapped: when someone truncates it while we read, a read comes back short and we say so; a mapping would
kill the process with SIGBUS.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

import torch

from comfy.errors import HostMemoryExhausted, WeightFileInvalid
from comfy.weights.files import FileIdentity, TensorInfo, expect_unchanged, open_file
from comfy.weights.pickles import read_pickle
from comfy.weights.slab import Region, Slab, View

CHUNK_BYTES = 16 * 2**20
#: of the file at a time where bytes are converted: small enough to stay in a core's cache between read and conversion
SCRATCH_BYTES = 4 * 2**20
#: what eight threads read is three times what two do (architecture.md, measured); more gain nothing
MAX_THREADS = 8

Job = Callable[[], None]


def fill_slab(slab: Slab) -> None:
    """Read every region of `slab` from the file of its key, in the calling thread and up to seven more.

    Raises WeightFileMissing, WeightFileInvalid (truncated, replaced, rewritten while being read, a broken pickle) or
    HostMemoryExhausted. What was written by then is left as it is; the slab must not be used.
    """
    identity = slab.key.file
    descriptor = open_file(identity)
    try:
        jobs = list(_jobs(slab, _File(descriptor, identity)))
        _run(jobs, min(MAX_THREADS, 1 + slab.nbytes // CHUNK_BYTES, os.cpu_count() or 1))
        expect_unchanged(descriptor, identity)
    finally:
        os.close(descriptor)


class _File:
    """Positioned reads of one open file, from any number of threads."""

    def __init__(self, descriptor: int, identity: FileIdentity) -> None:
        self._descriptor, self._identity = descriptor, identity
        self._scratch = threading.local()

    def read_into(self, target: torch.Tensor, start: int, tensor: str) -> None:
        """Fill `target`, a (n,) uint8 tensor on the CPU, with the file's bytes from offset `start` on."""
        if target.numel() == 0:
            return
        view = target.numpy().data
        while view:
            try:
                count = _read_at(self._descriptor, view, start)
            except OSError as error:
                if error.errno in (errno.EFAULT, errno.ENOMEM):  # no page left for the bytes
                    raise HostMemoryExhausted("The system gives no more memory.", file=self._identity.name) from error
                reason = os.strerror(error.errno or 0)
                raise WeightFileInvalid("It cannot be read.", file=self._identity.name, tensor=tensor, reason=reason) from error
            if count == 0:
                raise WeightFileInvalid("It ends inside a tensor; it was cut off.", file=self._identity.name, tensor=tensor, offset=start)
            view, start = view[count:], start + count

    def read_scratch(self, nbytes: int, start: int, tensor: str) -> torch.Tensor:
        """(nbytes,) uint8 with the file's bytes from `start` on, valid until the calling thread's next read.

        One buffer a thread: a fresh one for each piece would cost more in page faults than the conversion does.
        """
        buffer: torch.Tensor | None = getattr(self._scratch, "buffer", None)
        if buffer is None or buffer.numel() < nbytes:
            buffer = self._scratch.buffer = torch.empty(max(nbytes, SCRATCH_BYTES), dtype=torch.uint8)
        self.read_into(buffer[:nbytes], start, tensor)
        return buffer[:nbytes]


def _read_at(descriptor: int, target: memoryview, start: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [target], start)
    data = os.pread(descriptor, min(len(target), CHUNK_BYTES), start)
    target[: len(data)] = data
    return len(data)


def _jobs(slab: Slab, file: _File) -> Iterator[Job]:
    """The work, in pieces of about CHUNK_BYTES that may run in any order."""
    loaded: Mapping[str, torch.Tensor] | None = None
    for region in slab.plan.regions:
        if region.source.start < 0:
            loaded = read_pickle(slab.key.file.path)[0] if loaded is None else loaded
            yield _copy_job(slab, region, loaded)
        elif region.dtype == region.source.dtype and not region.transpose and region.scale is None:
            for first in range(0, region.nbytes, CHUNK_BYTES):
                yield _read_job(slab, region, file, first, min(first + CHUNK_BYTES, region.nbytes))
        else:
            yield from _convert_jobs(slab, region, file)


def _read_job(slab: Slab, region: Region, file: _File, first: int, end: int) -> Job:
    target = slab.flat[region.offset + first : region.offset + end]
    return lambda: file.read_into(target, region.source.start + first, region.source.name)


def _copy_job(slab: Slab, region: Region, loaded: Mapping[str, torch.Tensor]) -> Job:
    source = loaded.get(region.source.name)
    if source is None or tuple(source.shape) != region.source.shape:
        raise WeightFileInvalid("It was replaced; run the prompt again.", file=slab.key.file.name, tensor=region.source.name)
    target = View(region, None, None).of(slab.flat)
    if region.transpose:
        target = target.t()

    factor = None if region.scale is None else float(loaded[region.scale.name])

    def copy() -> None:
        target.copy_(source if factor is None else source.float() * factor)

    return copy


def _convert_jobs(slab: Slab, region: Region, file: _File) -> Iterator[Job]:
    """Pieces of the source through a scratch buffer each: elements of it as they come, or rows where it is transposed."""
    whole = View(region, None, None).of(slab.flat)
    target = whole.t() if region.transpose else whole.view(-1)
    count = target.shape[0]
    if target.numel() == 0:
        return
    step_bytes = region.source.nbytes // count
    step = max(1, SCRATCH_BYTES // step_bytes)
    for first in range(0, count, step):
        yield _convert_job(target[first : first + step], region, file, region.source.start + first * step_bytes, step_bytes)


def _convert_job(target: torch.Tensor, region: Region, file: _File, start: int, step_bytes: int) -> Job:
    def convert() -> None:
        factor = None if region.scale is None else _scalar(file, region.scale)
        scratch = file.read_scratch(target.shape[0] * step_bytes, start, region.source.name)
        stored = scratch.view(region.source.dtype).view(target.shape)
        target.copy_(stored if factor is None else stored.float() * factor)

    return convert


def _scalar(file: _File, info: TensorInfo) -> float:
    """A tensor of one element, read through the scratch buffer."""
    return float(file.read_scratch(info.nbytes, info.start, info.name).view(info.dtype))


def _run(jobs: list[Job], threads: int) -> None:
    if threads == 1:
        for job in jobs:
            job()
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="weights-read")
    try:
        futures = [pool.submit(job) for job in jobs]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)
