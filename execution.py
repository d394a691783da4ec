"""PromptExecutor: runs one job's graph on the lane that calls it. Keeps the names that custom nodes import from here."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable
from typing import Any

import torch

import comfy.control
from comfy.control import JobControl
from comfy.nodes.registry import NodeRegistry
from comfy_execution.caching import ExecutionCache
from comfy_execution.events import Event, JobResult
from comfy_execution.exclusive import Turn, Turns
from comfy_execution.expansion import DuplicateNodeError
from comfy_execution.failures import Failure, Masker
from comfy_execution.graph import DynamicPrompt
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.job import Job, JobState
from comfy_execution.node_class import NodeClasses
from comfy_execution.progress import Publisher, job_progress
from comfy_execution.queue import PromptQueue
from comfy_execution.reports import Reports
from comfy_execution.rng import GlobalRng
from comfy_execution.run import JobRun
from comfy_execution.validation import validate_node_input, validate_prompt

__all__ = ["DuplicateNodeError", "ExecutionBlocker", "PromptExecutor", "PromptQueue", "validate_node_input", "validate_prompt"]

log = logging.getLogger(__name__)


def _to_nobody(event: Event) -> None:
    return None


class PromptExecutor:
    """Runs jobs one after another and keeps their results for the next. Used by one thread, so it has no lock.

    registry      the node classes
    lane          index that messages carry
    publish       told every message of a job, in order; `status` and the closing `executing` are the scheduler's
    cache_policy  classic, lru or none (contract: execution.md section 14.2)
    cache_lru     results that lru keeps
    show_gpu_id   whether `execution_start` tells the lane
    turns         the process's door for jobs that must run alone; without it every job shares
    """

    def __init__(
        self,
        registry: NodeRegistry,
        lane: int = 0,
        publish: Callable[[Event], None] = _to_nobody,
        *,
        cache_policy: str = "classic",
        cache_lru: int = 0,
        show_gpu_id: bool = False,
        turns: Turns | None = None,
    ) -> None:
        self.registry = registry
        self.lane = lane
        self._publish_to = publish
        self._gpu_id = lane if show_gpu_id else None
        self._rng = GlobalRng()
        self._turns = turns if turns is not None else Turns(registry)
        self.cache = ExecutionCache(cache_policy, cache_lru)

    def reset(self) -> None:
        """Drop all kept results and instances."""
        self.cache.clear()

    def execute(self, job: Job, control: JobControl) -> JobResult:
        """Run `job` in the calling thread, on an event loop of its own. Never raises.

        Takes the control's progress sink for the length of the job and tells it the node that runs. The job's prompt stays as it is.
        """
        dynprompt = DynamicPrompt({})
        reports = Reports(control, dynprompt, self._publish, self._gpu_id)
        sink = control.progress
        try:
            dynprompt.original_prompt = copy.deepcopy(dict(job.prompt))
            with self._turns.turn(job.prompt, control) as turn:
                state = self._run(job, control, dynprompt, reports, turn)
            outputs, meta = self._ui_results(dynprompt, reports)
        except BaseException as error:  # outside node code: our own bug, or a prompt that no validation saw
            state, outputs, meta = reports.failed(Failure.of(error, Masker(job.secrets.values())), ""), {}, {}
        finally:
            control.progress = sink
            control.node_id = None
            self.cache.end()
        return JobResult(state, outputs, meta, tuple(reports.messages), reports.out_of_memory, reports.fatal)

    def _run(self, job: Job, control: JobControl, dynprompt: DynamicPrompt, reports: Reports, turn: Turn) -> JobState:
        with comfy.control.entered(control), job_progress(job.prompt_id, dynprompt) as progress, torch.inference_mode():
            control.progress = Publisher(progress, control, self._publish).sink

            async def main() -> JobState:
                classes = NodeClasses(self.registry)
                return await JobRun(job, control, dynprompt, classes, self.cache, self._rng, progress, reports, turn).run()

            return asyncio.run(main())

    def _ui_results(self, dynprompt: DynamicPrompt, reports: Reports) -> tuple[dict[str, Any], dict[str, Any]]:
        outputs, meta = {}, {}
        for node_id, ui, stored in self.cache.ui_results():
            outputs[node_id] = ui
            meta[node_id] = reports.meta(node_id) if dynprompt.has_node(node_id) else stored
        return outputs, meta

    def _publish(self, event: Event) -> None:
        try:
            self._publish_to(event)
        except Exception:
            log.exception("a message of lane %d could not be published", self.lane)
