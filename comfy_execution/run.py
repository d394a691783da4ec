"""One job's graph, from `execution_start` to its end (contract: execution.md sections 6 to 16, websocket.md section 4)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from comfy.control import JobControl
from comfy_execution.caching import ExecutionCache
from comfy_execution.calling import Caller, finished
from comfy_execution.changes import Changes
from comfy_execution.exclusive import Turn
from comfy_execution.expansion import add_nodes, resolve
from comfy_execution.failures import Failure, Masker
from comfy_execution.graph import DependencyCycleError, DynamicPrompt
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.inputs import NodeInputs, collect_inputs
from comfy_execution.job import Job, JobState
from comfy_execution.node_class import NodeClass, NodeClasses
from comfy_execution.ordering import ExecutionList
from comfy_execution.outputs import CallResult, merge_uis, merge_values, read_returns
from comfy_execution.progress import ProgressRegistry
from comfy_execution.reports import Reports
from comfy_execution.rng import GlobalRng
from comfy_execution.signature import Signatures

log = logging.getLogger(__name__)


class JobRun:
    """The state of one running job. Lives for one call of `run`, on the loop that this starts in."""

    def __init__(
        self,
        job: Job,
        control: JobControl,
        dynprompt: DynamicPrompt,
        classes: NodeClasses,
        cache: ExecutionCache,
        rng: GlobalRng,
        progress: ProgressRegistry,
        reports: Reports,
        turn: Turn,
    ) -> None:
        self.job = job
        self.control = control
        self.dynprompt = dynprompt
        self.classes = classes
        self.cache = cache
        self.rng = rng
        self.progress = progress
        self.reports = reports
        self.turn = turn
        self.masker = Masker(job.secrets.values())
        self.changes = Changes(job.prompt_id, dynprompt, classes, rng)
        self.signatures = Signatures(dynprompt, classes, self.changes.value)
        self.order = ExecutionList(dynprompt, classes, cache.has)  # not our own method: that would be a cycle
        self._parked: dict[str, list[Any]] = {}  # asynchronous node -> results and tasks of its calls
        self._expanded: dict[str, Sequence[CallResult]] = {}  # expanding node -> what its calls gave
        self._inputs: Mapping[str, Sequence[Any]] | None = None  # of the node that is called now
        self._at: str | None = None  # the node that is being done

    async def run(self) -> JobState:
        """Run the job. Nothing escapes: whatever goes wrong is reported and gives FAILED or INTERRUPTED."""
        failure: Failure | None = None
        blamed: str | None = None
        try:
            await self._prepare()
            while not self.order.is_empty():
                self._at = None
                self._at = await self.order.next()
                await self._advance(self._at)
        except DependencyCycleError as error:
            return self.reports.cycle(str(error.facts.get("blamed")))
        except BaseException as error:
            failure = Failure.of(error, self.masker, self._inputs)
            blamed = getattr(error, "facts", {}).get("blamed")
        if failure is not None:
            return self.reports.failed(failure, self._blame(blamed))
        return self.reports.succeeded()

    async def _prepare(self) -> None:
        self.reports.started()
        submitted = self.dynprompt.original_prompt
        self.control.check()
        await self.changes.compute(submitted)
        self.cache.begin(self.dynprompt, {node_id: self.signatures.key(node_id) for node_id in submitted}, self.job.outputs)
        self.reports.cached([node_id for node_id in submitted if self.cache.has(node_id)])
        for output in self.job.outputs:
            self.order.add_node(output)

    def _blame(self, named: str | None) -> str:
        candidates = (named, self._at, self.changes.at, *self._parked, *self.job.outputs, *self.dynprompt.original_prompt)
        return next((node_id for node_id in candidates if node_id is not None and self.dynprompt.has_node(node_id)), "")

    async def _advance(self, node_id: str) -> None:
        """Take the node one step further: to its end, or until it waits for something."""
        self._inputs = None
        node_class = self.classes.of(self.dynprompt.get_node(node_id))
        if self.cache.has(node_id):
            self.reports.executed(node_id, self.cache.ui(node_id))
            self._leave(node_id)
        elif node_id in self._expanded:
            values = resolve(self._expanded.pop(node_id), self.cache.outputs)
            self._complete(node_id, merge_values(values, node_class))
        elif node_id in self._parked:
            returns = [finished(result) for result in self._parked.pop(node_id)]
            await self._take(node_id, node_class, returns)
        else:
            await self._start(node_id, node_class)
        self._inputs = None

    async def _start(self, node_id: str, node_class: NodeClass) -> None:
        self.progress.start_progress(node_id)
        self.control.node_id = self.dynprompt.get_display_node_id(node_id)
        self.reports.executing(node_id)
        inputs = collect_inputs(node_class, self.dynprompt.get_node(node_id).get("inputs", {}), self._hidden(node_id), self.cache.outputs)
        self._inputs = inputs.values
        caller = self._caller(node_id, node_class, self._blocked(node_id))
        target = self._target(node_id, node_class, inputs, caller)
        if await self._wants_lazy(node_id, node_class, target, inputs):
            self.order.retry(node_id)
            return
        results = caller.start(getattr(target, node_class.function), inputs.values)
        if any(isinstance(result, asyncio.Task) for result in results):
            await asyncio.sleep(0)
            waiting = [result for result in results if isinstance(result, asyncio.Task) and not result.done()]
            if waiting:
                self._parked[node_id] = results
                resume = self.order.park(node_id)
                asyncio.gather(*waiting, return_exceptions=True).add_done_callback(lambda _: resume())
                return
        await self._take(node_id, node_class, [finished(result) for result in results])

    def _caller(self, node_id: str, node_class: NodeClass, blocked: Callable[[ExecutionBlocker], ExecutionBlocker] | None = None) -> Caller:
        rng = self.rng if node_class.uses_global_rng else None
        return Caller(self.job.prompt_id, node_id, node_class.input_is_list, rng, blocked)

    def _blocked(self, node_id: str) -> Callable[[ExecutionBlocker], ExecutionBlocker]:
        def report(blocker: ExecutionBlocker) -> ExecutionBlocker:
            if blocker.message is None:
                return blocker
            self.reports.blocked(node_id, self.masker.text(str(blocker.message)))
            return ExecutionBlocker(None)  # one report per branch

        return report

    def _hidden(self, node_id: str) -> dict[str, Any]:
        return {
            "PROMPT": self.dynprompt.get_original_prompt(),
            "DYNPROMPT": self.dynprompt,
            "EXTRA_PNGINFO": self.job.extra_data.get("extra_pnginfo"),
            "UNIQUE_ID": node_id,
            "AUTH_TOKEN_COMFY_ORG": self.job.secrets.get("auth_token_comfy_org"),
            "API_KEY_COMFY_ORG": self.job.secrets.get("api_key_comfy_org"),
        }

    def _target(self, node_id: str, node_class: NodeClass, inputs: NodeInputs, caller: Caller) -> Any:
        """What the node's methods are called on: its V1 instance, or a clone of its V3 class."""
        if node_class.is_v3:
            return node_class.on_class(inputs.hidden)

        def make() -> Any:
            with caller.generators():
                return node_class.cls()

        return self.cache.instance(node_id, node_class.name, make, node_class.cls)

    async def _wants_lazy(self, node_id: str, node_class: NodeClass, target: Any, inputs: NodeInputs) -> bool:
        """Ask the node which lazy inputs it needs; True when it has to wait for one. Raises NodeInputError."""
        if node_class.lazy_check is None:
            return False
        answers = await self._caller(node_id, node_class).run(getattr(target, node_class.lazy_check), inputs.values)
        asked = dict.fromkeys(name for answer in answers if isinstance(answer, list) for name in answer if isinstance(name, str))
        needed = [name for name in asked if name not in inputs.values or name in inputs.missing]
        # not any(...): every input that is asked for has to become a dependency
        return True in [self.order.make_input_strong_link(node_id, name) for name in needed]

    async def _take(self, node_id: str, node_class: NodeClass, returns: Sequence[Any]) -> None:
        returned = read_returns(returns, node_class)
        ui = self.masker.json(merge_uis(returned.uis))
        if ui:
            self.cache.put_ui(node_id, ui, self.reports.meta(node_id))
            self.reports.executed(node_id, ui)
        if returned.expands:
            await self._expand(node_id, returned.calls)
        else:
            self._complete(node_id, merge_values([call.values for call in returned.calls], node_class))

    async def _expand(self, node_id: str, calls: Sequence[CallResult]) -> None:
        expansion = add_nodes(node_id, calls, self.dynprompt, self.classes)
        self.turn.include(str(self.dynprompt.get_node(new).get("class_type")) for new in expansion.nodes)
        await self.changes.compute(expansion.nodes)
        self.cache.add_children(node_id, {new: self.signatures.key(new) for new in expansion.nodes})
        for source in expansion.links:
            self.cache.add_read(source, node_id)
        for output in expansion.outputs:
            self.order.add_node(output)
        for source in expansion.links:
            self.order.add_strong_link(source, node_id)
        self._expanded[node_id] = calls
        self.order.retry(node_id)

    def _complete(self, node_id: str, outputs: Sequence[Any]) -> None:
        self.cache.put_outputs(node_id, outputs)
        self.reports.done.append(node_id)
        self._leave(node_id)

    def _leave(self, node_id: str) -> None:
        self.progress.finish_progress(node_id)
        self.cache.done(node_id)
        self.order.complete(node_id)
