"""`PromptServer.instance.prompt_queue`: the queue object that custom nodes know, over the scheduler.

Items are tuples (number, prompt_id, prompt, extra_data, outputs_to_execute), secrets left out; read them by index. Lanes
take jobs by themselves, so the reference's `get` and `task_done`, calls of its worker, do not exist here.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from comfy import control
from comfy.errors import PromptIdInUse
from comfy_execution.queue import JobRow
from comfy_execution.scheduler import Scheduler
from comfy_execution.validation import ValidPrompt

Item = tuple[Any, ...]


def _item(row: JobRow) -> Item:
    return tuple(json.loads(row.json))


class CompatQueue:
    """Waiting and running jobs as custom nodes read and change them. Any thread may call."""

    def __init__(self, scheduler: Callable[[], Scheduler]) -> None:
        """`scheduler()` may raise NotReady: packs take hold of the queue while they load, before there are lanes."""
        self._get_scheduler = scheduler
        #: packs hold it while they look; the scheduler's own locks do the work
        self.mutex = threading.RLock()

    @property
    def _scheduler(self) -> Scheduler:
        return self._get_scheduler()

    @property
    def currently_running(self) -> dict[str, Item]:
        """Running jobs by id. Inside a node only the job that runs it: packs take the first for their own."""
        job = control.current()
        rows = self._scheduler.queue(None).running
        return {row.prompt_id: _item(row) for row in rows if job is None or row.prompt_id == job.prompt_id}

    @property
    def queue(self) -> list[Item]:
        """Waiting jobs, next first: a copy."""
        return [_item(row) for row in self._scheduler.queue(None).pending]

    @property
    def history(self) -> dict[str, Any]:
        """Finished jobs by id: a copy."""
        return self.get_history()

    def get_tasks_remaining(self) -> int:
        """How many jobs wait or run."""
        return self._scheduler.remaining()

    def get_current_queue(self) -> tuple[list[Item], list[Item]]:
        """(running, waiting)."""
        return list(self.currently_running.values()), self.queue

    def get_current_queue_volatile(self) -> tuple[list[Item], list[Item]]:
        """The same: there is no cheaper look."""
        return self.get_current_queue()

    def put(self, item: Sequence[Any]) -> None:
        """Queue an item of five or more members; the router chooses its lane.

        A pack queues its own running job again to go on with it: an id that is in use gets a new one. Secrets of the
        running job go along, since the pack never saw them. Raises QueueFull or ShuttingDown.
        """
        number, prompt_id, prompt, extra_data, outputs = item[:5]
        valid = ValidPrompt(prompt=dict(prompt), outputs=tuple(outputs), node_errors={})
        secrets = {} if (row := self._running_here()) is None else dict(row.job.secrets)
        more = dict(item[5]) if len(item) > 5 and isinstance(item[5], dict) else {}
        extra = {**secrets, **dict(extra_data), **more}
        try:
            self._submit(str(prompt_id), number, valid, extra)
        except PromptIdInUse:
            self._submit(str(uuid.uuid4()), number, valid, extra)

    def delete_queue_item(self, function: Callable[[Item], bool]) -> bool:
        """Remove the first waiting job for which `function(item)` holds; whether there was one."""
        for row in self._scheduler.queue(None).pending:
            if function(_item(row)):
                return self._scheduler.delete([row.prompt_id], None) > 0
        return False

    def wipe_queue(self) -> None:
        """Remove every waiting job."""
        self._scheduler.clear(None)

    def get_history(
        self,
        prompt_id: str | None = None,
        max_items: int | None = None,
        offset: int = -1,
        map_function: Callable[[dict[str, Any]], Any] | None = None,
    ) -> dict[str, Any]:
        """Finished jobs by id, or the one of that id, each through `map_function` when given."""
        history = self._scheduler.history
        found: dict[str, Any] = json.loads(history.get(max_items, offset) if prompt_id is None else history.one(prompt_id))
        return found if map_function is None else {key: map_function(value) for key, value in found.items()}

    def wipe_history(self) -> None:
        """Forget every finished job."""
        self._scheduler.history.clear()

    def delete_history_item(self, prompt_id: str) -> None:
        """Forget one finished job."""
        self._scheduler.history.delete([prompt_id])

    def set_flag(self, name: str, data: Any) -> None:
        """`unload_models` or `free_memory`: done by every lane before its next job."""
        if data and name in ("unload_models", "free_memory"):
            self._scheduler.free(None, unload_models=name == "unload_models", free_memory=name == "free_memory")

    def get_flags(self, reset: bool = True) -> dict[str, Any]:
        """Nothing: lanes are given their flags at once."""
        return {}

    def _running_here(self) -> JobRow | None:
        job = control.current()
        rows = self._scheduler.queue(None).running
        return next((row for row in rows if job is not None and row.prompt_id == job.prompt_id), None)

    def _submit(self, prompt_id: str, number: float, valid: ValidPrompt, extra_data: dict[str, Any]) -> None:
        self._scheduler.submit(prompt_id=prompt_id, number=number, valid=valid, extra_data=extra_data, target=None)
