"""A pack's own module in a MODEL handle, on several lanes. The meta device stands for a GPU: a CPU has no second one."""

from __future__ import annotations

import gc
import pickle

import torch
from torch import nn

from comfy.device.context import DeviceContext, make_context
from comfy.model_management import load_models_gpu, loaded_models, unload_all_models
from comfy.models.patcher import ModelPatcher
from comfy.models.plain import PlainModule
from comfy.weights.cache import WeightCache
from tests.fakes import cpu_context

META = torch.device("meta")


def lane(index: int = 0) -> DeviceContext:
    return make_context(index, META, WeightCache(1 << 20), 1 << 20)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(2, 2)
        self.tied = self.line.weight
        self.register_buffer("table", torch.arange(3.0))


def test_asking_for_it_brings_the_module_itself_to_the_lanes_device() -> None:
    module = Small()
    handle = ModelPatcher(module, torch.device("cuda"), torch.device("cpu"))
    with lane().activate():
        assert handle.model is module
        assert handle.loaded_size() == 0
        load_models_gpu([handle])
        assert handle.model is module
        assert {tensor.device.type for tensor in (*module.parameters(), *module.buffers())} == {"meta"}
        assert loaded_models() == [handle]
        assert handle.clone().loaded_size() == handle.model_size() > 0


def test_one_that_was_made_for_the_cpu_stays_there() -> None:
    module = Small()
    handle = ModelPatcher(module, torch.device("cpu"), torch.device("cpu"))
    with lane().activate():
        load_models_gpu([handle])
        assert handle.load_device == torch.device("cpu")
        assert module.line.weight.device.type == "cpu"


def test_a_second_lane_gets_a_copy_with_the_same_values() -> None:
    module = Small()
    plain, first, second = PlainModule(module), cpu_context(0), cpu_context(1)
    plain.bring(first, torch.device("cpu"))
    plain.bring(second, torch.device("cpu"))
    assert plain.on(first) is plain.on(None) is module
    copied = plain.on(second)
    assert copied is not module
    assert copied.tied is copied.line.weight  # what was one tensor is one
    for mine, theirs in zip((*copied.parameters(), *copied.buffers()), (*module.parameters(), *module.buffers())):
        assert torch.equal(mine, theirs)
        assert mine.data_ptr() != theirs.data_ptr()
    plain.bring(second, torch.device("cpu"))
    assert plain.on(second) is copied


def test_freeing_drops_the_copy_and_gives_the_module_to_the_next_lane() -> None:
    module = Small()
    plain, first, second = PlainModule(module), cpu_context(0), cpu_context(1)
    plain.bring(first, torch.device("cpu"))
    plain.bring(second, torch.device("cpu"))
    plain.leave(second)
    assert plain.on(second) is module
    plain.leave(first)
    assert not plain.is_on(first)
    plain.bring(second, torch.device("cpu"))
    assert plain.on(second) is module
    assert plain.is_on(second)


def test_a_lane_that_is_gone_keeps_nothing() -> None:
    plain, first = PlainModule(Small()), cpu_context(0)
    plain.bring(first, torch.device("cpu"))
    del first
    gc.collect()
    second = cpu_context(1)
    plain.bring(second, torch.device("cpu"))
    assert plain.on(second) is plain.module


def test_unloading_all_takes_it_off_the_device() -> None:
    handle = ModelPatcher(nn.Identity(), torch.device("cuda"), torch.device("cpu"), size=5)
    with lane().activate():
        load_models_gpu([handle])
        assert handle.loaded_size() == 5
        unload_all_models()
        assert handle.loaded_size() == 0
    assert isinstance(pickle.loads(pickle.dumps(handle)).model, nn.Identity)
