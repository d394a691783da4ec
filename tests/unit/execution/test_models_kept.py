from __future__ import annotations

import asyncio
from pathlib import Path

import torch
from torch import nn

from comfy.device import context
from comfy.weights.header import open_index
from comfy_execution.calling import Caller
from tests.fakes import cpu_context, entries_of, key_of, make_file


def test_a_second_model_of_one_node_does_not_push_out_the_first(tmp_path: Path) -> None:
    lane = cpu_context()
    lane.resident.budget_bytes = 1  # less than either model
    files = [make_file(tmp_path / f"{name}.safetensors", {"weight": torch.ones(64)}) for name in "ab"]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.empty(64))

    def bring(path: Path) -> nn.Module:
        return context.current().resident.module(key_of(path), entries_of(open_index(path)), Net, path.name)

    def node() -> tuple[frozenset[str]]:
        first = bring(files[0])
        bring(files[1])
        assert bring(files[0]) is first
        return (lane.holds(),)

    with lane.activate():
        (result,) = asyncio.run(Caller("job", "1", False).run(node, {}))
    assert result == (frozenset({"a.safetensors", "b.safetensors"}),)
    assert len(lane.holds()) <= 1  # over budget, so what the node needs no more is gone
    lane.resident.check()
