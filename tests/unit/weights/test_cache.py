import random
import threading
from threading import Barrier, Event

import pytest
import torch

from comfy.control import Interrupted
from comfy.errors import HostMemoryExhausted, WeightFileInvalid
from comfy.weights.cache import WeightCache
from comfy.weights.files import FileIdentity, TensorInfo
from comfy.weights.fill import fill_slab
from comfy.weights.header import open_index
from comfy.weights.slab import SlabEntry, SlabKey
from tests.fakes import PATIENCE_S, ManualClock, entries_of, in_threads, key_of, make_file

UNIT = 256  # bytes of the smallest slab


def key(name, component="denoiser"):
    return SlabKey(FileIdentity(f"/models/{name}", 1, 1, 1), component)


def entries(units=1):
    return [SlabEntry("w", TensorInfo("w", torch.uint8, (units * UNIT,), 8, units * UNIT), torch.uint8)]


def cache_of(units, **kwargs):
    reads = []
    kwargs.setdefault("fill", lambda slab: reads.append(slab.key.file.name))
    return WeightCache(units * UNIT, **kwargs), reads


def test_lanes_asking_for_one_file_read_it_once(tmp_path):
    path, together, reads = make_file(tmp_path / "a.safetensors"), Barrier(4), []

    def fill(slab):
        reads.append(slab.key)
        fill_slab(slab)

    cache = WeightCache(2**20, fill=fill)

    def ask(_):
        together.wait(PATIENCE_S)
        with cache.lease(key_of(path), lambda: entries_of(open_index(path))) as slab:
            return slab, slab.tensor("weight").clone()

    answers = in_threads(4, ask)
    assert reads == [key_of(path)]
    assert len({id(slab) for slab, _ in answers}) == 1
    assert all(torch.equal(tensor, torch.arange(6.0).view(2, 3)) for _, tensor in answers)
    statistics = cache.statistics()
    assert (statistics.reads, statistics.hits, statistics.rows[0].leases) == (1, 3, 0)
    cache.check()


def test_a_waiter_gets_the_slab_only_when_it_is_filled():
    reading, go_on, order = Event(), Event(), []

    def fill(slab):
        reading.set()
        assert go_on.wait(PATIENCE_S)
        order.append("filled")

    cache, _ = cache_of(4, fill=fill)

    def ask(index):
        if index == 1:
            assert reading.wait(PATIENCE_S)
            assert not cache.statistics().rows[0].ready  # the table answers while the file is read: no lock is held over IO
            cache.check()
            go_on.set()
        with cache.lease(key("a"), entries()):
            order.append("lent")

    in_threads(2, ask)
    assert order == ["filled", "lent", "lent"]


def test_two_files_are_read_at_the_same_time():
    both = Barrier(2)
    cache, _ = cache_of(4, fill=lambda slab: both.wait(PATIENCE_S))
    in_threads(2, lambda index: cache.acquire(key(f"file{index}"), entries()).close())
    assert len(cache.slab_keys()) == 2


def test_an_error_reaches_every_waiter_and_is_not_kept():
    reading, go_on, calls = Event(), Event(), []

    def fill(slab):
        calls.append(slab)
        if len(calls) == 1:
            reading.set()
            assert go_on.wait(PATIENCE_S)
            raise WeightFileInvalid("broken", file="a")

    cache, _ = cache_of(4, fill=fill)

    def ask(index):
        if index:
            assert reading.wait(PATIENCE_S)
        if index == 2:
            while cache.statistics().hits < 1:  # the other waiter is registered
                pass
            threading.Thread(target=lambda: _after_hits(cache, 2, go_on), daemon=True).start()
        try:
            cache.acquire(key("a"), entries())
        except WeightFileInvalid as error:
            return error
        return None

    errors = in_threads(3, ask)
    assert [error.facts for error in errors] == [{"file": "a"}] * 3
    assert len({id(error) for error in errors}) == 3
    assert len(calls) == 1
    assert cache.statistics().used_bytes == 0
    cache.check()
    cache.acquire(key("a"), entries()).close()
    assert len(calls) == 2


def _after_hits(cache, hits, event):
    while cache.statistics().hits < hits:
        pass
    event.set()


def test_a_reader_that_is_interrupted_leaves_the_reading_to_the_next():
    reading, calls = Event(), []

    def fill(slab):
        calls.append(slab)
        if len(calls) == 1:
            reading.set()
            _after_hits(cache, 1, Event())
            raise Interrupted("job 1")

    cache, _ = cache_of(4, fill=fill)

    def ask(index):
        if index == 0:
            with pytest.raises(Interrupted):
                cache.acquire(key("a"), entries())
            return None
        assert reading.wait(PATIENCE_S)
        return cache.acquire(key("a"), entries())

    _, lease = in_threads(2, ask)
    assert not lease.closed
    assert len(calls) == 2
    cache.check()


@pytest.mark.parametrize("where", ["entries", "fill", "on_filled"])
def test_what_fails_on_the_way_frees_its_bytes(where):
    def fail(*_):
        raise WeightFileInvalid(where)

    cache, _ = cache_of(1, **({} if where == "entries" else {where: fail}))
    with pytest.raises(WeightFileInvalid, match=where):
        cache.acquire(key("a"), fail if where == "entries" else entries())
    assert (cache.statistics().used_bytes, cache.slab_keys()) == (0, ())
    cache.check()


def test_the_least_recently_used_goes_first_and_a_leased_one_never():
    cache, reads = cache_of(3)
    lease = cache.acquire(key("leased"), entries())
    cache.acquire(key("old"), entries()).close()
    cache.acquire(key("new"), entries()).close()
    cache.acquire(key("old"), entries()).close()
    cache.acquire(key("more"), entries()).close()
    assert [each.file.name for each in cache.slab_keys()] == ["leased", "old", "more"]
    assert cache.statistics().evictions == 1
    cache.check()
    cache.acquire(key("big"), entries(2)).close()
    assert [each.file.name for each in cache.slab_keys()] == ["leased", "big"]
    lease.close()
    cache.acquire(key("whole"), entries(3)).close()
    assert [each.file.name for each in cache.slab_keys()] == ["whole"]
    assert reads == ["leased", "old", "new", "more", "big", "whole"]
    cache.check()


def test_what_cannot_fit_is_refused_and_evicts_nothing():
    cache, _ = cache_of(3)
    lease = cache.acquire(key("leased"), entries(2))
    cache.acquire(key("idle"), entries()).close()
    with pytest.raises(HostMemoryExhausted) as caught:
        cache.acquire(key("big"), entries(2))
    facts = caught.value.facts
    assert (facts["file"], facts["needed_bytes"], facts["free_bytes"], facts["capacity_bytes"]) == ("big", 2 * UNIT, UNIT, 3 * UNIT)
    assert [each.file.name for each in cache.slab_keys()] == ["leased", "idle"]
    cache.check()
    lease.close()
    cache.acquire(key("big"), entries(2)).close()
    cache.check()


def test_closing_a_lease_twice_counts_once():
    cache, _ = cache_of(2)
    first, second = cache.acquire(key("a"), entries()), cache.acquire(key("a"), entries())
    in_threads(4, lambda _: first.close())
    assert first.closed
    assert cache.statistics().rows[0].leases == 1
    second.close()
    assert cache.statistics().rows[0].leases == 0
    cache.check()


def test_a_lease_ends_with_its_block_also_on_an_error():
    cache, _ = cache_of(2)
    with pytest.raises(ZeroDivisionError), cache.lease(key("a"), entries()):
        raise ZeroDivisionError
    assert cache.statistics().rows[0].leases == 0


def test_capacity_zero_keeps_nothing_after_the_last_lease():
    cache, reads = cache_of(0)
    first = cache.acquire(key("a"), entries(5))
    with cache.lease(key("a"), entries(5)) as slab:
        assert slab is first.slab
    assert len(cache.slab_keys()) == 1
    cache.check()
    first.close()
    assert cache.slab_keys() == ()
    cache.acquire(key("a"), entries(5)).close()
    assert reads == ["a", "a"]
    cache.check()


def test_pinned_slabs_stay():
    cache, _ = cache_of(2)
    cache.pin(key("kept"))
    cache.acquire(key("kept"), entries()).close()
    cache.acquire(key("a"), entries()).close()
    with pytest.raises(HostMemoryExhausted):
        cache.acquire(key("big"), entries(2))
    assert [row.pinned for row in cache.statistics().rows] == [True, False]
    assert cache.drop_unleased() == UNIT
    assert [each.file.name for each in cache.slab_keys()] == ["kept"]
    cache.unpin(key("kept"))
    cache.acquire(key("big"), entries(2)).close()
    assert [each.file.name for each in cache.slab_keys()] == ["big"]
    cache.check()


def test_unpinning_with_capacity_zero_drops():
    cache, _ = cache_of(0)
    cache.pin(key("kept"))
    cache.acquire(key("kept"), entries()).close()
    assert len(cache.slab_keys()) == 1
    cache.unpin(key("kept"))
    assert cache.slab_keys() == ()
    cache.check()


def test_drop_unleased_leaves_what_is_leased():
    cache, _ = cache_of(4)
    lease = cache.acquire(key("leased"), entries())
    cache.acquire(key("idle"), entries(2)).close()
    assert cache.drop_unleased() == 2 * UNIT
    assert [each.file.name for each in cache.slab_keys()] == ["leased"]
    assert not lease.closed


def test_a_replaced_file_is_a_new_slab_and_the_old_one_stays_while_leased(tmp_path):
    path, cache = make_file(tmp_path / "a.safetensors", {"w": torch.ones(4)}), WeightCache(2**20)
    old_key = key_of(path)
    old = cache.acquire(old_key, entries_of(open_index(path)))
    make_file(tmp_path / "b.safetensors", {"w": torch.zeros(4)}).replace(path)
    new = cache.acquire(key_of(path), entries_of(open_index(path)))
    assert key_of(path) != old_key
    assert torch.equal(old.slab.tensor("w"), torch.ones(4))
    assert torch.equal(new.slab.tensor("w"), torch.zeros(4))
    assert len(cache.slab_keys()) == 2
    with pytest.raises(WeightFileInvalid, match="replaced"):  # the old bytes are gone: what remembers them must look again
        cache.acquire(SlabKey(old_key.file, "vae"), entries_of(open_index(path)))
    cache.check()


def test_hooks_and_rows_tell_what_operators_see(tmp_path):
    clock, seen = ManualClock(100.0), []
    path = make_file(tmp_path / "a.safetensors")
    cache = WeightCache(2**20, on_filled=lambda slab: seen.append(slab.tensor("weight").sum().item()), clock=clock)
    lease = cache.acquire(key_of(path, "vae", "float32"), entries_of(open_index(path)))
    clock.advance(5)
    lease.close()
    assert seen == [15.0]
    (row,) = cache.statistics().rows
    assert (row.file_name, row.component, row.dtype, row.layout) == ("a.safetensors", "vae", "float32", "plain")
    assert (row.nbytes, row.leases, row.last_use, row.pinned, row.ready) == (UNIT, 0, 105.0, False, True)


def test_many_threads_in_a_small_cache_keep_the_books():
    cache, _ = cache_of(4, fill=lambda slab: slab.flat.fill_(int(slab.key.file.name)))
    refused = []

    def hammer(index):
        choose = random.Random(index)
        for _ in range(60):
            number = choose.randrange(6)
            try:
                with cache.lease(key(str(number)), entries(1 + number % 3)) as slab:
                    assert slab.tensor("w").eq(number).all()
                    cache.check()
            except HostMemoryExhausted:
                refused.append(number)
            if number == 5:
                cache.drop_unleased()

    in_threads(4, hammer)
    cache.check()
    statistics = cache.statistics()
    assert all(row.leases == 0 and row.ready for row in statistics.rows)
    assert statistics.reads + statistics.hits == 4 * 60
