"""Acceptance check 9 of parallel-hazards.md: a thread that a node starts, and "cuda" in it, are on the lane's GPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from comfy.compat import threads
from comfy.device.context import make_context
from comfy.model_management import get_torch_device
from comfy.units import GIB
from comfy.weights.cache import WeightCache

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    threads.install()
    yield
    threads.uninstall()


def test_cuda_in_a_nodes_thread_and_pool_is_the_lanes_gpu() -> None:
    cache = WeightCache(GIB)
    at_import = get_torch_device()  # what packs keep in a module global
    with ThreadPoolExecutor(1) as pool:
        for index in range(torch.cuda.device_count()):
            with make_context(index, torch.device("cuda", index), cache, GIB).activate():
                seen: list[torch.device] = []

                def work(seen: list[torch.device] = seen) -> None:
                    seen.extend(torch.zeros(1, device=device).device for device in ("cuda", at_import, get_torch_device()))

                thread = threading.Thread(target=work)
                thread.start()
                thread.join()
                pool.submit(work).result()
                assert seen == [torch.device("cuda", index)] * 6
