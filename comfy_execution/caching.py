"""What an executor keeps between prompts: node outputs, UI results and V1 instances (contract: execution.md section 14).

Everything belongs to one executor, so to one lane and its thread; nothing here has a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from comfy_execution.graph import DynamicPrompt
from comfy_execution.graph_utils import is_link
from comfy_execution.signature import Key

POLICIES = ("classic", "lru", "none")


@dataclass
class Entry:
    """The result of one node.

    outputs  a list per slot; None while only the UI of an expanding node is known, or once nobody needs them
    ui       merged UI result, or None
    meta     whose UI it is, as history shows it
    """

    outputs: Sequence[Any] | None = None
    ui: dict[str, Any] | None = None
    meta: dict[str, Any] | None = None
    generation: int = 0


@dataclass
class _Scope:
    """The entries of the submitted nodes, or of the children of one expanding node."""

    entries: dict[Key, Entry] = field(default_factory=dict)
    ids: dict[str, Key] = field(default_factory=dict)  # of this prompt, or of the last expansion
    children: dict[tuple[str, str], _Scope] = field(default_factory=dict)  # by (node id, class) that expanded


class ExecutionCache:
    """Results by signature, kept by one of three policies.

    classic  those of the previous prompt
    lru      about `size` entries over many prompts, whole generations dropped at a time; children of expansions among them
    none     dropped as soon as every direct consumer has run; nothing survives a prompt
    """

    def __init__(self, policy: str = "classic", size: int = 0) -> None:
        if policy == "lru" and size <= 0:
            policy = "classic"
        if policy not in POLICIES:
            raise ValueError(f"cache policy {policy!r} is none of {', '.join(POLICIES)}")
        self.policy = policy
        self.size = size
        self._generation = 0
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._root = _Scope()
        self._scopes: dict[str, _Scope] = {}
        self._dynprompt = DynamicPrompt({})
        self._instances: dict[tuple[str, str], tuple[Any, tuple[str, str]]] = {}
        self._readers: dict[tuple[int, Key], set[str]] = {}  # policy none: who will still read a result
        self._reads: dict[str, list[tuple[_Scope, Key]]] = {}  # and what a node will read

    def begin(self, dynprompt: DynamicPrompt, keys: Mapping[str, Key], outputs: Iterable[str]) -> None:
        """Start a prompt that shall run `outputs`: drop what the policy does not keep.

        keys  of every submitted node
        """
        self._scopes = {}
        if self.policy == "none":
            self.clear()
        self._dynprompt = dynprompt
        self._generation += 1
        self._root.ids = dict(keys)
        kept = {(node_id, node["class_type"]) for node_id, node in dynprompt.original_prompt.items()}
        self._instances = {key: found for key, found in self._instances.items() if found[1] in kept}
        self._root.children = {owner: scope for owner, scope in self._root.children.items() if owner in kept}
        if self.policy == "lru":
            for key in self._root.ids.values():
                self._stamp(self._root.entries.get(key))
            self._drop_generations()
        else:
            self._keep_only(self._root)
        if self.policy == "none":
            self._count_reads(_reachable(dynprompt, outputs))

    def add_children(self, parent_id: str, keys: Mapping[str, Key]) -> None:
        """Make room for the nodes that `parent_id` expanded into; they are in the dynamic prompt already."""
        if self.policy == "lru":
            self._root.ids.update(keys)
            self._drop_generations()
            return
        owner = parent_id, self._dynprompt.get_node(parent_id)["class_type"]
        scope = self._scope(parent_id).children.setdefault(owner, _Scope())
        scope.ids = dict(keys)
        self._scopes.update(dict.fromkeys(keys, scope))
        self._keep_only(scope)
        if self.policy == "none":
            self._count_reads(keys)

    def outputs(self, node_id: str) -> Sequence[Any] | None:
        """The outputs of a node of the prompt, a list per slot, or None."""
        entry = self._entry(node_id)
        return None if entry is None else entry.outputs

    def has(self, node_id: str) -> bool:
        """Whether the outputs of a node of the prompt are there."""
        return self.outputs(node_id) is not None

    def ui(self, node_id: str) -> dict[str, Any] | None:
        """The UI result of a node of the prompt, or None."""
        entry = self._entry(node_id)
        return None if entry is None else entry.ui

    def put_outputs(self, node_id: str, outputs: Sequence[Any]) -> None:
        """Keep the outputs of a node that is done."""
        self._make(node_id).outputs = outputs

    def put_ui(self, node_id: str, ui: dict[str, Any], meta: dict[str, Any]) -> None:
        """Keep the UI result of a node."""
        entry = self._make(node_id)
        entry.ui, entry.meta = ui, meta

    def done(self, node_id: str) -> None:
        """The node has run and needs its inputs no more."""
        for scope, key in self._reads.pop(node_id, ()):
            readers = self._readers[id(scope), key]
            readers.discard(node_id)
            entry = scope.entries.get(key)
            if not readers and entry is not None:
                entry.outputs = None

    def end(self) -> None:
        """The prompt is over and its UI results were read."""
        if self.policy == "none":
            self.clear()
        self._scopes = {}
        self._dynprompt = DynamicPrompt({})  # the nodes of an expansion may hold tensors

    def instance(self, node_id: str, class_name: str, make: Callable[[], Any], cls: type) -> Any:
        """The V1 instance of a node, made when there is none: it lives while consecutive prompts have that id and class."""
        found = self._instances.get((node_id, class_name))
        if found is None or type(found[0]) is not cls:
            real = self._dynprompt.get_real_node_id(node_id)
            found = make(), (real, self._dynprompt.get_node(real)["class_type"])
            self._instances[node_id, class_name] = found
        return found[0]

    def ui_results(self) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
        """(node id, UI result, meta) of every node of the prompt, and of children kept from an earlier expansion."""
        expanded_now = {id(scope) for scope in self._scopes.values()}
        scopes = [self._root]
        while scopes:
            scope = scopes.pop()
            for node_id, key in scope.ids.items():
                entry = scope.entries.get(key)
                if entry is not None and entry.ui is not None and entry.meta is not None:
                    yield node_id, entry.ui, entry.meta
            for (node_id, _), child in scope.children.items():
                if id(child) in expanded_now or scope.ids.get(node_id) in scope.entries:
                    scopes.append(child)

    def __len__(self) -> int:
        """How many results are kept, at every depth."""
        scopes, count = [self._root], 0
        while scopes:
            scope = scopes.pop()
            count += len(scope.entries)
            scopes.extend(scope.children.values())
        return count

    def _scope(self, node_id: str) -> _Scope:
        return self._scopes.get(node_id, self._root)

    def _entry(self, node_id: str) -> Entry | None:
        scope = self._scope(node_id)
        key = scope.ids.get(node_id)
        entry = None if key is None else scope.entries.get(key)
        self._stamp(entry)
        return entry

    def _make(self, node_id: str) -> Entry:
        scope = self._scope(node_id)
        entry = scope.entries.setdefault(scope.ids[node_id], Entry())
        self._stamp(entry)
        return entry

    def _stamp(self, entry: Entry | None) -> None:
        if entry is not None:
            entry.generation = self._generation

    def _keep_only(self, scope: _Scope) -> None:
        wanted = set(scope.ids.values())
        scope.entries = {key: entry for key, entry in scope.entries.items() if key in wanted}
        owners = {(node_id, self._dynprompt.get_node(node_id)["class_type"]) for node_id in scope.ids}
        scope.children = {owner: child for owner, child in scope.children.items() if owner in owners}

    def _drop_generations(self) -> None:
        entries = self._root.entries
        if len(entries) <= self.size:
            return
        for oldest in sorted({entry.generation for entry in entries.values()} - {self._generation}):
            if len(entries) <= self.size:
                break
            entries = {key: entry for key, entry in entries.items() if entry.generation != oldest}
        self._root.entries = entries

    def _count_reads(self, node_ids: Iterable[str]) -> None:
        for node_id in node_ids:
            inputs = self._dynprompt.get_node(node_id).get("inputs", {})
            for source in {value[0] for value in inputs.values() if is_link(value)}:
                self.add_read(source, node_id)

    def add_read(self, source: str, reader: str) -> None:
        """`reader` will read the outputs of `source`, which the policy `none` keeps until then."""
        scope = self._scope(source)
        key = scope.ids.get(source)
        if self.policy == "none" and key is not None:
            self._readers.setdefault((id(scope), key), set()).add(reader)
            self._reads.setdefault(reader, []).append((scope, key))


def _reachable(dynprompt: DynamicPrompt, outputs: Iterable[str]) -> list[str]:
    stack = [output for output in outputs if dynprompt.has_node(output)]
    found = dict.fromkeys(stack)
    while stack:
        for value in dynprompt.get_node(stack.pop()).get("inputs", {}).values():
            if is_link(value) and value[0] not in found and dynprompt.has_node(value[0]):
                found[value[0]] = None
                stack.append(value[0])
    return [*found]
