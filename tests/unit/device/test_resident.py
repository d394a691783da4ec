import gc
import weakref

import pytest
import torch
from torch import nn

from comfy.device.resident import ResidentModels
from comfy.errors import HostMemoryExhausted, OutOfDeviceMemory, WeightFileInvalid
from comfy.weights.cache import WeightCache
from comfy.weights.header import open_index
from tests.fakes import cpu_context, entries_of, in_threads, key_of, make_file

UNIT = 256  # bytes of a slab that holds one small tensor


class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.inner(x) * self.scale


TENSORS = {"inner.weight": torch.eye(4) * 2, "inner.bias": torch.ones(4), "scale": torch.tensor(3.0)}


@pytest.fixture
def path(tmp_path):
    return make_file(tmp_path / "net.safetensors", TENSORS)


def ask(resident, path, build=Net, name=None, **kwargs):
    return resident.module(key_of(path), lambda: entries_of(open_index(path)), build, name or path.name, **kwargs)


def residents(budget_bytes=2**20, capacity_bytes=2**20, copies=None):
    cache = WeightCache(capacity_bytes)
    return ResidentModels(torch.device("cpu"), budget_bytes, cache, copies=copies), cache


def small_files(tmp_path, names):
    """Files of one slab UNIT each, with a matrix for `Small`."""
    return {name: make_file(tmp_path / name, {"weight": torch.ones(2, 2)}) for name in names}


def small():
    return nn.Linear(2, 2, bias=False)


def test_a_cpu_lanes_parameters_are_the_slab_itself(path):
    resident, cache = residents()
    net = ask(resident, path)
    with cache.lease(key_of(path), ()) as slab:
        for name, parameter in net.named_parameters():
            assert parameter.data_ptr() == slab.tensor(name).data_ptr(), name
    assert torch.equal(net(torch.ones(4)), torch.full((4,), 9.0))
    assert not net.training
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert cache.statistics().rows[0].leases == 1
    assert ask(resident, path) is net
    assert (resident.statistics().loads, resident.statistics().hits) == (1, 1)
    resident.check()


def test_two_lanes_share_one_slab_and_no_module(path):
    cache = WeightCache(2**20)
    lanes = [cpu_context(index, cache) for index in range(2)]

    def run(index):
        with lanes[index].activate():
            return ask(lanes[index].resident, path)

    first, second = in_threads(2, run)
    assert first is not second
    assert first.inner.weight is not second.inner.weight
    assert first.inner.weight.data_ptr() == second.inner.weight.data_ptr()
    assert (cache.statistics().reads, cache.statistics().rows[0].leases) == (1, 2)
    for lane in lanes:
        lane.resident.check()
        lane.unload()
    assert cache.statistics().rows[0].leases == 0
    cache.check()


def test_parameters_made_in_inference_mode_work_outside_it(path):
    with cpu_context().activate() as ctx:
        net = ask(ctx.resident, path)
    assert not any(parameter.is_inference() for parameter in net.parameters())
    x = torch.ones(4, requires_grad=True)
    net(x).sum().backward()
    assert torch.equal(x.grad, torch.full((4,), 6.0))


def test_a_device_with_memory_of_its_own_gets_one_copy_with_the_same_offsets(path):
    resident, cache = residents(copies=True)
    net = ask(resident, path)
    with cache.lease(key_of(path), ()) as slab:
        moved = {parameter.data_ptr() - slab.tensor(name).data_ptr() for name, parameter in net.named_parameters()}
    assert len(moved) == 1
    assert moved != {0}
    assert torch.equal(net(torch.ones(4)), torch.full((4,), 9.0))
    assert cache.statistics().rows[0].leases == 0  # the copy needs the slab no more
    resident.check()


@pytest.mark.parametrize("copies", [False, True])
def test_the_least_recently_used_model_goes_when_the_budget_is_spent(tmp_path, copies):
    files = small_files(tmp_path, ["a.pt.safetensors", "b.safetensors", "c.safetensors"])
    a, b, c = files.values()
    resident, cache = residents(budget_bytes=2 * UNIT, copies=copies)
    for path in (a, b, a, c):
        ask(resident, path, small)
        resident.check()
    assert resident.holds() == {a.name, c.name}
    statistics = resident.statistics()
    assert (statistics.used_bytes, statistics.evictions, statistics.loads, statistics.hits) == (2 * UNIT, 1, 3, 1)
    assert sum(row.leases for row in cache.statistics().rows) == (0 if copies else 2)


def test_what_a_node_uses_stays_until_it_is_done(tmp_path):
    a, b, c = small_files(tmp_path, ["a.safetensors", "b.safetensors", "c.safetensors"]).values()
    resident, _ = residents(budget_bytes=UNIT)
    with resident.using():
        ask(resident, a, small)
        ask(resident, b, small)
        with resident.using():
            ask(resident, c, small)
        assert resident.holds() == {a.name, b.name}  # c was done, and is the first to go
        assert resident.free() == 0
        resident.check()
    assert resident.holds() == {b.name}
    resident.check()
    assert resident.free() == UNIT
    assert resident.holds() == frozenset()


def test_a_model_bigger_than_the_budget_still_runs_alone(path):
    resident, _ = residents(budget_bytes=1)
    with resident.using():
        assert torch.equal(ask(resident, path)(torch.ones(4)), torch.full((4,), 9.0))
        resident.check()
    assert resident.holds() == frozenset()


def test_freeing_gives_the_memory_back(path):
    resident, cache = residents()
    net = weakref.ref(ask(resident, path))
    assert resident.free() == 3 * UNIT
    assert (resident.holds(), resident.used_bytes) == (frozenset(), 0)
    gc.collect()
    assert net() is None
    assert cache.drop_unleased() == 3 * UNIT
    resident.check()


def test_idle_views_make_room_for_another_file_when_ram_is_short(tmp_path):
    a, b = small_files(tmp_path, ["a.safetensors", "b.safetensors"]).values()
    resident, cache = residents(budget_bytes=2**20, capacity_bytes=UNIT)
    ask(resident, a, small)
    ask(resident, b, small)
    assert resident.holds() == {b.name}
    with resident.using():
        ask(resident, b, small)
        with pytest.raises(HostMemoryExhausted):
            ask(resident, a, small)
    resident.check()
    cache.check()


def test_a_shape_that_does_not_fit_names_the_tensor_and_keeps_nothing(path):
    resident, cache = residents()
    with pytest.raises(WeightFileInvalid) as caught:
        ask(resident, path, lambda: Net(8))
    facts = caught.value.facts
    assert (facts["file"], facts["tensor"]) == ("net.safetensors", "inner.weight")
    assert (facts["shape"], facts["expected_shape"]) == ([4, 4], [8, 8])
    assert resident.holds() == frozenset()
    assert cache.statistics().rows[0].leases == 0
    resident.check()


def test_missing_parameters_are_zero_and_said_once_and_unknown_names_are_ignored(tmp_path, caplog):
    tensors = {"inner.weight": torch.eye(4).half(), "unknown.thing": torch.ones(3).half()}
    path = make_file(tmp_path / "part.safetensors", tensors)
    resident, _ = residents()
    net = ask(resident, path, optional=("scale",))
    assert net.inner.bias.tolist() == [0.0] * 4
    assert net.inner.bias.dtype == net.scale.dtype == torch.float16
    assert resident.statistics().rows[0].missing == ("inner.bias",)
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "inner.bias" in record.getMessage()
    assert "scale" not in record.getMessage()


class Computes(nn.Module):
    """Has a buffer that no file holds, one that a file may hold, and a tied weight."""

    def __init__(self):
        super().__init__()
        self.first = nn.Embedding(3, 2)
        self.second = nn.Embedding(3, 2)
        self.second.weight = self.first.weight
        self.alias = self.first
        self.register_buffer("ids", torch.arange(5), persistent=False)
        self.register_buffer("mean", torch.zeros(2))

    def materialize(self, device):
        self.ids = torch.arange(5, device=device)


class Careless(Computes):
    materialize = None


def test_buffers_come_from_the_file_or_from_the_module_and_tied_weights_stay_tied(tmp_path, caplog):
    path = make_file(tmp_path / "a.safetensors", {"second.weight": torch.ones(3, 2), "mean": torch.full((2,), 5.0)})
    resident, _ = residents()
    module = ask(resident, path, Computes)
    assert module.first.weight is module.second.weight
    assert torch.equal(module.alias.weight, torch.ones(3, 2))
    assert module.ids.tolist() == [0, 1, 2, 3, 4]
    assert module.mean.tolist() == [5.0, 5.0]
    assert not caplog.records or all(record.levelname != "WARNING" for record in caplog.records)
    with pytest.raises(TypeError, match="ids"):
        ResidentModels(torch.device("cpu"), 2**20, WeightCache(2**20)).module(
            key_of(path), entries_of(open_index(path)), Careless, "careless"
        )


@pytest.mark.parametrize("copies", [False, True])
def test_a_variant_changes_only_its_own_tensors(path, copies):
    resident, cache = residents(copies=copies)
    plain = ask(resident, path)
    patched = ask(resident, path, variant=("lora", 0.5), patch=lambda name, tensor: tensor + 1 if name == "inner.bias" else tensor)
    assert torch.equal(patched(torch.ones(4)), torch.full((4,), 12.0))
    assert torch.equal(plain(torch.ones(4)), torch.full((4,), 9.0))
    with cache.lease(key_of(path), ()) as slab:
        assert torch.equal(slab.tensor("inner.bias"), torch.ones(4))
        shares = {name for name, parameter in patched.named_parameters() if parameter.data_ptr() == slab.tensor(name).data_ptr()}
    assert shares == (set() if copies else {"inner.weight", "scale"})
    assert ask(resident, path, variant=("lora", 0.5)) is patched
    extra = 0 if copies else 4 * 4
    assert resident.used_bytes == 2 * 3 * UNIT + extra
    assert [row.patched for row in resident.statistics().rows] == [False, True]
    resident.check()


@pytest.mark.parametrize("copies", [False, True])
def test_a_freed_variant_leaves_no_bytes(path, copies):
    resident, cache = residents(copies=copies)
    made = []

    def patch(name, tensor):
        changed = tensor * 2
        made.append(weakref.ref(changed.untyped_storage()))
        return changed

    variant = weakref.ref(ask(resident, path, variant=1, patch=patch))
    resident.free()
    gc.collect()
    assert variant() is None
    assert len(made) == 3
    assert all(storage() is None for storage in made)
    assert resident.used_bytes == 0
    assert sum(row.leases for row in cache.statistics().rows) == 0


def test_a_patched_tensor_of_another_dtype_or_shape_is_fitted_or_refused(path):
    resident, _ = residents()
    net = ask(resident, path, variant=1, patch=lambda name, tensor: tensor.double() + 1)
    assert net.inner.weight.dtype == torch.float32
    with pytest.raises(WeightFileInvalid, match="does not fit"):
        ask(resident, path, variant=2, patch=lambda name, tensor: torch.zeros(7))
    resident.check()


class Full(ResidentModels):
    """A device whose allocator refuses `refusals` times."""

    refusals = 0

    def _empty(self, nbytes):
        if self.refusals:
            self.refusals -= 1
            raise torch.cuda.OutOfMemoryError("no")
        return super()._empty(nbytes)


def test_a_full_gpu_gives_up_its_idle_models_first(tmp_path):
    a, b = small_files(tmp_path, ["a.safetensors", "b.safetensors"]).values()
    resident = Full(torch.device("cpu"), 2**20, WeightCache(2**20), copies=True)
    ask(resident, a, small)
    resident.refusals = 1
    ask(resident, b, small)
    assert resident.holds() == {b.name}
    resident.refusals = 2
    with pytest.raises(OutOfDeviceMemory) as caught:
        ask(resident, a, small)
    assert caught.value.facts["needed_bytes"] == UNIT
    assert caught.value.facts["model"] == a.name
    resident.check()
