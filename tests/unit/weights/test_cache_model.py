"""The cache against a model of it: any order of asking, closing, pinning and dropping keeps the invariants."""

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from comfy.errors import HostMemoryExhausted
from comfy.weights.cache import WeightCache
from comfy.weights.files import FileIdentity, TensorInfo
from comfy.weights.slab import SlabEntry, SlabKey

UNIT, CAPACITY = 256, 5
FILES = st.sampled_from("abcdef")


def key(name):
    return SlabKey(FileIdentity(name, 1, 1, 1), "denoiser")


def size(name):
    """1 to 6 units: the last one never fits."""
    return "abcdef".index(name) + 1


class CacheMachine(RuleBasedStateMachine):
    leases = Bundle("leases")

    def __init__(self):
        super().__init__()
        self.cache = WeightCache(CAPACITY * UNIT, fill=lambda slab: None, clock=lambda: 0.0)
        self.order = []  # names, least recently used first
        self.held = dict.fromkeys("abcdef", 0)
        self.pinned = set()

    def touch(self, name):
        self.order = [each for each in self.order if each != name] + [name]

    def expected_after_asking(self, name):
        """The table after asking for `name`, or None when it cannot fit."""
        table = list(self.order)
        for victim in self.order:
            if name in table or sum(map(size, table)) + size(name) <= CAPACITY:
                break
            if not self.held[victim] and victim not in self.pinned:
                table.remove(victim)
        fits = name in table or sum(map(size, table)) + size(name) <= CAPACITY
        return [each for each in table if each != name] + [name] if fits else None

    @rule(target=leases, name=FILES)
    def ask(self, name):
        expected = self.expected_after_asking(name)
        count = size(name) * UNIT
        entry = SlabEntry("w", TensorInfo("w", torch.uint8, (count,), 8, count), torch.uint8)
        try:
            lease = self.cache.acquire(key(name), [entry])
        except HostMemoryExhausted:
            assert expected is None
            return multiple()
        assert expected is not None
        self.order = expected
        self.held[name] += 1
        return (name, lease)

    @rule(held=consumes(leases), again=st.booleans())
    def close(self, held, again):
        name, lease = held
        lease.close()
        self.held[name] -= 1
        self.touch(name)
        if again:
            lease.close()

    @rule(name=FILES)
    def pin(self, name):
        self.cache.pin(key(name))
        self.pinned.add(name)

    @rule(name=FILES)
    def unpin(self, name):
        self.cache.unpin(key(name))
        self.pinned.discard(name)

    @rule()
    def drop(self):
        self.cache.drop_unleased()
        self.order = [name for name in self.order if self.held[name] or name in self.pinned]

    @invariant()
    def the_table_is_the_model(self):
        self.cache.check()
        assert [each.file.name for each in self.cache.slab_keys()] == self.order
        rows = {row.file_name: row for row in self.cache.statistics().rows}
        assert {name: row.leases for name, row in rows.items()} == {name: self.held[name] for name in self.order}
        assert self.cache.statistics().used_bytes == UNIT * sum(map(size, self.order))


CacheMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=20, deadline=None, derandomize=True, database=None)
TestCacheMachine = CacheMachine.TestCase
