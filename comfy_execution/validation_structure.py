"""Can the graph be ordered at all? Links to nothing and static cycles, over every link, declared or not.

Undeclared links count because the executor follows them too: one to an absent node must not reach it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_execution.validation_checks import Report, links, report

SHOWN_OF_A_CYCLE = 20
MOST_CYCLES_REPORTED = 50
MOST_STEPS = 200_000  # of finding who depends on a bad node, for the whole prompt


class Structure:
    """The links of one prompt; nodes are looked at once, however many outputs depend on them."""

    def __init__(self, prompt: Mapping[str, Any]) -> None:
        self.prompt = prompt
        self._sound: dict[str, bool] = {}
        self._cycles_left = MOST_CYCLES_REPORTED
        self._steps_left = MOST_STEPS

    def check(self, output: str, errors: dict[str, list[Report]]) -> bool:
        """Whether `output` and all its ancestors can be ordered; adds to `errors` what is wrong with a node."""
        if output in self._sound:
            return self._sound[output]
        path: dict[str, None] = {}  # the nodes being followed, in order
        stack: list[tuple[str, bool]] = [(output, False)]
        while stack:
            node_id, done = stack.pop()
            if done:
                del path[node_id]
                continue
            if node_id in self._sound:
                continue
            path[node_id] = None
            self._sound[node_id] = True
            stack.append((node_id, True))
            for name, link in reversed(self._links(node_id)):
                source = link[0]
                if source not in self.prompt:
                    self._add_absent(node_id, name, link, errors)
                    self._spoil(path)
                elif source in path:
                    self._add_cycle(node_id, name, link, path, errors)
                    self._spoil(path)
                elif source in self._sound:
                    if not self._sound[source]:
                        self._spoil(path)
                else:
                    stack.append((source, False))
        return self._sound[output]

    def ancestors(self, output: str) -> list[str]:
        """The node and all that it depends on; only a part once the whole prompt took MOST_STEPS."""
        found = {output: None}
        stack = [output]
        while stack and self._steps_left > 0:
            self._steps_left -= 1
            for _, link in self._links(stack.pop()):
                if link[0] in self.prompt and link[0] not in found:
                    found[link[0]] = None
                    stack.append(link[0])
        return [*found]

    def _links(self, node_id: str) -> list[tuple[str, list[Any]]]:
        return list(links(self.prompt[node_id].get("inputs", {})))

    def _spoil(self, path: dict[str, None]) -> None:
        for node_id in reversed(path):
            if not self._sound[node_id]:
                return  # then so are those before it
            self._sound[node_id] = False

    def _add_absent(self, node_id: str, name: str, link: list[Any], errors: dict[str, list[Report]]) -> None:
        if errors.get(node_id):
            return  # a declared link to nothing was reported by the check of the node
        message = "Bad linked input, the node that it links to does not exist"
        details = f"{name}: node '{link[0]}' does not exist"
        errors.setdefault(node_id, []).append(
            report("bad_linked_input", message, details, input_name=name, input_config=None, received_value=link)
        )

    def _add_cycle(self, node_id: str, name: str, link: list[Any], path: Mapping[str, None], errors: dict[str, list[Report]]) -> None:
        if self._cycles_left == 0:
            return  # enough to see why; a hostile prompt may hold millions
        self._cycles_left -= 1
        way = [*path]
        members = way[way.index(link[0]) :]
        shown = [*members[:SHOWN_OF_A_CYCLE], *(["…"] if len(members) > SHOWN_OF_A_CYCLE else []), link[0]]
        errors.setdefault(node_id, []).append(
            report("dependency_cycle", "Dependency cycle detected", f"{name}: {' → '.join(shown)}", input_name=name, linked_node=link)
        )
