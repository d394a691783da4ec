"""How fast weights come: file -> RAM, RAM -> GPU, and switching between two models that do not fit together.

    python3 -m benchmarks.weights                 # SD1.5's denoiser, random weights, on every GPU there is

Each figure stands beside the plain one measured in the same run: eight threads of preadv into memory that is there, and a
plain copy of as many page-locked bytes. The lanes' budget holds one of the two models, so each use of the other is a switch.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import harness
from comfy.device.context import DeviceContext, make_context
from comfy.device.page_lock import PageLocker
from comfy.models.loader import load_checkpoint
from comfy.models.random_checkpoint import full_sizes, write_checkpoint
from comfy.units import GIB
from comfy.weights.cache import WeightCache

CHUNK = 16 * 2**20


def seconds(work: Callable[[], Any]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def plain_read(path: Path) -> float:
    """GB/s of eight threads of preadv over the whole file, from the page cache, into memory that was touched before."""
    size = path.stat().st_size
    target = torch.ones(size, dtype=torch.uint8).numpy().data
    descriptor = os.open(path, os.O_RDONLY)

    def read(start: int) -> None:
        view = target[start : start + CHUNK]
        while view:
            count = os.preadv(descriptor, [view], start)
            view, start = view[count:], start + count

    def whole() -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(read, range(0, size, CHUNK)))

    whole()
    taken = seconds(whole)
    os.close(descriptor)
    return size / taken / 1e9


def denoiser_bytes(path: Path) -> int:
    """Bytes of the denoiser as it runs."""
    model = load_checkpoint(path).model
    return int(model.model_size())


def plain_copy(nbytes: int, devices: list[torch.device]) -> tuple[float, float]:
    """GB/s of a copy of that many page-locked bytes: to one GPU, and the sum of all at once."""
    host = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
    targets = [torch.empty(nbytes, dtype=torch.uint8, device=device) for device in devices]

    def copy(i: int) -> None:
        targets[i].copy_(host, non_blocking=True)
        torch.cuda.synchronize(devices[i])

    copy(0)
    one = nbytes / statistics.median(seconds(lambda: copy(0)) for _ in range(5)) / 1e9
    for i in range(len(devices)):
        copy(i)
    return one, len(devices) * nbytes / at_once(len(devices), copy) / 1e9


def at_once(count: int, work: Callable[[int], Any]) -> float:
    """Seconds until `work(0)` … `work(count - 1)`, each in a thread and begun together, are all done."""
    together = threading.Barrier(count + 1)

    def one(i: int) -> None:
        together.wait()
        work(i)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    together.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


def bring(ctx: DeviceContext, path: Path) -> None:
    """Have the lane's denoiser of `path` on its device, and wait until it is."""
    with ctx.activate():
        _ = load_checkpoint(path).model.model.diffusion_model
        torch.cuda.synchronize(ctx.device)


def switches(ctx: DeviceContext, paths: list[Path], rounds: int) -> list[float]:
    """Seconds of each switch between models that do not fit together."""
    for path in paths:
        bring(ctx, path)
    return [seconds(partial(bring, ctx, path)) for _ in range(rounds) for path in paths]


def lanes_of(paths: list[Path], devices: list[torch.device], nbytes: int, rounds: int, locked: bool) -> dict[str, Any]:
    """First use, switches on one lane, and switches on all lanes at once, over a cache of its own."""
    cache = WeightCache(32 * GIB)
    if locked:
        cache.lock_pages = PageLocker()
    lanes = [make_context(i, device, cache, int(nbytes * 1.3 / 0.8)) for i, device in enumerate(devices)]
    first = []
    for path in paths:
        first.append(seconds(partial(bring, lanes[0], path)))
    one = switches(lanes[0], paths, rounds)
    taken: list[list[float]] = [[] for _ in lanes]
    total = at_once(len(lanes), lambda i: taken[i].extend(switches(lanes[i], paths, rounds)))
    for lane in lanes:
        lane.resident.check()
    cache.check()
    return {
        "first_use_s": [round(value, 3) for value in first],
        "switch_s": round(statistics.median(one), 4),
        "switch_gbs": round(nbytes / statistics.median(one) / 1e9, 2),
        "switch_all_lanes_s": round(statistics.median(value for values in taken for value in values), 4),
        "all_lanes_gbs": round(len(lanes) * (2 + 2 * rounds) * nbytes / total / 1e9, 2),
        "loads": sum(lane.resident.statistics().loads for lane in lanes),
        "locked": [row.page_locked for row in cache.statistics().rows],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--base", type=Path, default=None)
    args = parser.parse_args()
    devices = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    with tempfile.TemporaryDirectory(prefix="weights_") as scratch:
        base = args.base or Path(scratch)
        base.mkdir(parents=True, exist_ok=True)
        paths = [base / f"random_{name}.safetensors" for name in "ab"]
        for seed, path in enumerate(paths):
            if not path.exists():
                write_checkpoint(path, full_sizes(), seed)
        figures: dict[str, Any] = {"plain_read_gbs": round(plain_read(paths[0]), 2)}
        nbytes = denoiser_bytes(paths[0])
        figures["component_bytes"] = nbytes
        figures["plain_copy_gbs"], figures["plain_copy_all_gbs"] = (round(rate, 2) for rate in plain_copy(nbytes, devices))
        for name, locked in (("page_locked", True), ("pageable", False)):
            figures[name] = lanes_of(paths, devices, nbytes, args.rounds, locked)
            print(figures[name], flush=True)
        print(figures)
    print(f"results: {harness.keep('weights_sd15', figures)}")


if __name__ == "__main__":
    main()
