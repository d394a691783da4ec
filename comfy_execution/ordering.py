"""Which node runs next (contract: execution.md section 6)."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Any

import comfy.control
from comfy_execution.graph import DependencyCycleError, DynamicPrompt, NodeInputError, NodeNotFoundError
from comfy_execution.graph_utils import is_link
from comfy_execution.node_class import NodeClasses

STOP_POLL_S = 0.1  # while only asynchronous nodes run, how often the stop flag is looked at


class ExecutionList:
    """The nodes still to be done, what each waits for, and the choice among those that wait for nothing.

    Ready nodes are kept in a heap by (rank, order of arrival); ranks change only when a node that is already ready gets a new
    consumer, and then the heap is made anew. So a prompt of n nodes costs n log n, whatever its shape.
    """

    def __init__(self, dynprompt: DynamicPrompt, classes: NodeClasses, is_cached: Callable[[str], bool]) -> None:
        self.dynprompt = dynprompt
        self.classes = classes
        self._is_cached = is_cached
        self._arrival: dict[str, int] = {}  # the pending nodes
        self._consumers: dict[str, dict[str, None]] = {}  # pending node -> the pending nodes that wait for it
        self._blocks: dict[str, int] = {}  # pending node -> how many things it waits for
        self._ready: set[str] = set()  # pending nodes that wait for nothing and are not being done
        self._heap: list[tuple[int, int, str]] = []
        self._stale = True  # the heap must be made anew before it is read
        self._parked = 0
        self._awake = asyncio.Event()
        self._arrivals = 0

    def is_empty(self) -> bool:
        """Whether everything is done."""
        return not self._arrival

    def add_node(self, node_id: str) -> None:
        """Make a node pending, with what it depends on: linked, not lazy and not cached. Raises NodeNotFoundError."""
        stack, new = [node_id], []
        while stack:
            current = stack.pop()
            if current in self._arrival:
                continue
            new.append(current)
            links = self._hard_links(current)
            self._arrivals += 1
            self._arrival[current] = self._arrivals
            self._consumers.setdefault(current, {})
            self._blocks.setdefault(current, 0)
            for source in links:
                stack.append(source)
                self._connect(source, current)
        self._ready.update(added for added in new if self._blocks[added] == 0)
        self._stale = True

    def _hard_links(self, node_id: str) -> list[str]:
        node = self.dynprompt.get_node(node_id)
        node_class = self.classes.of(node)
        found = []
        for name, value in node.get("inputs", {}).items():
            if not is_link(value) or self._is_cached(value[0]):
                continue
            if not self.dynprompt.has_node(value[0]):
                raise NodeNotFoundError(f"Input {name} links to it.", node_id=value[0], blamed=node_id)
            if not node_class.is_lazy(name):
                found.append(value[0])
        return found

    def _connect(self, source: str, consumer: str) -> None:
        consumers = self._consumers.setdefault(source, {})
        if consumer not in consumers:
            consumers[consumer] = None
            self._blocks[consumer] = self._blocks.get(consumer, 0) + 1
            self._ready.discard(consumer)
            self._stale = True

    def add_strong_link(self, source: str, consumer: str) -> bool:
        """Make the pending `consumer` wait for `source`; False when there is nothing to wait for, because that is cached."""
        if self._is_cached(source):
            return False
        self.add_node(source)
        self._connect(source, consumer)
        return True

    def make_input_strong_link(self, node_id: str, input_name: str) -> bool:
        """Evaluate a lazy input after all; False when its source is cached. Raises NodeInputError when it is absent or no link."""
        inputs = self.dynprompt.get_node(node_id).get("inputs", {})
        if input_name not in inputs:
            raise NodeInputError("The prompt does not give it.", node_id=node_id, input_name=input_name)
        value = inputs[input_name]
        if not is_link(value):
            raise NodeInputError("It is a constant, not a link.", node_id=node_id, input_name=input_name)
        return self.add_strong_link(value[0], node_id)

    def park(self, node_id: str) -> Callable[[], None]:
        """Keep a pending node back until the returned function is called (on the loop)."""
        self._blocks[node_id] += 1
        self._parked += 1

        def resume() -> None:
            self._parked -= 1
            self._unblock(node_id)
            self._awake.set()

        return resume

    async def next(self) -> str:
        """The node to do now; it stays pending until `complete`, or `retry` puts it back.

        Waits while only parked nodes are left. Raises DependencyCycleError, and Interrupted while it waits.
        """
        while True:
            self._refresh()
            if self._heap:
                node_id = heapq.heappop(self._heap)[2]
                self._ready.discard(node_id)
                return node_id
            if not self._parked:
                raise DependencyCycleError(blamed=self._blamed())
            self._awake.clear()
            comfy.control.check()
            waiter = asyncio.ensure_future(self._awake.wait())
            await asyncio.wait([waiter], timeout=STOP_POLL_S)
            waiter.cancel()

    def retry(self, node_id: str) -> None:
        """Put back a node that `next` gave and that is not done."""
        if self._blocks[node_id] == 0:
            self._push(node_id)

    def complete(self, node_id: str) -> None:
        """A node that `next` gave is done: what waited for it may go on."""
        del self._arrival[node_id], self._blocks[node_id]
        for consumer in self._consumers.pop(node_id):
            self._unblock(consumer)

    def _unblock(self, node_id: str) -> None:
        self._blocks[node_id] -= 1
        if self._blocks[node_id] == 0:
            self._push(node_id)

    def _push(self, node_id: str) -> None:
        self._ready.add(node_id)
        heapq.heappush(self._heap, (self._rank(node_id), self._arrival[node_id], node_id))

    def _refresh(self) -> None:
        if self._stale:
            self._heap = [(self._rank(node_id), self._arrival[node_id], node_id) for node_id in self._ready]
            heapq.heapify(self._heap)
            self._stale = False

    def _rank(self, node_id: str) -> int:
        """0: output or asynchronous; 1: feeds an output; 2: feeds what feeds an output; 3: any other."""
        node_class = self._class(node_id)
        if node_class.is_output or node_class.is_async:
            return 0
        consumers = self._consumers[node_id]
        if any(self._class(consumer).is_output for consumer in consumers):
            return 1
        if any(self._class(second).is_output for consumer in consumers for second in self._consumers[consumer]):
            return 2
        return 3

    def _class(self, node_id: str) -> Any:
        return self.classes.of(self.dynprompt.get_node(node_id))

    def _blamed(self) -> str:
        """A member of a cycle: shown at the node that expanded into it when there is one, else the first."""
        members = self._cycle_members()
        for node_id in members:
            if self.dynprompt.is_ephemeral(node_id):
                return self.dynprompt.get_display_node_id(node_id)
        return members[0]

    def _cycle_members(self) -> list[str]:
        """The pending nodes without those that merely wait for a cycle."""
        sources: dict[str, list[str]] = {node_id: [] for node_id in self._arrival}
        for source, consumers in self._consumers.items():
            for consumer in consumers:
                sources[consumer].append(source)
        feeds = {node_id: len(self._consumers[node_id]) for node_id in self._arrival}
        ends = [node_id for node_id, count in feeds.items() if count == 0]
        while ends:
            node_id = ends.pop()
            del feeds[node_id]
            for source in sources[node_id]:
                feeds[source] -= 1
                if feeds[source] == 0:
                    ends.append(source)
        return list(feeds) or list(self._arrival)
