"""Calling a node's method over the lists of its inputs (contract: execution.md sections 8, 10 and 13)."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import comfy.control
from comfy.device import context
from comfy_execution.graph_utils import ExecutionBlocker, GraphBuilder
from comfy_execution.rng import GlobalRng, Stepped
from comfy_execution.utils import CurrentNodeContext

Blocked = Callable[[ExecutionBlocker], ExecutionBlocker]


def slices(inputs: Mapping[str, Sequence[Any]], input_is_list: bool) -> Iterator[dict[str, Any]]:
    """The keyword arguments of each call; a list that is too short repeats its last element.

    Raises IndexError when one list is empty and another is not.
    """
    if input_is_list:
        yield dict(inputs)
        return
    longest = max((len(elements) for elements in inputs.values()), default=0)
    if longest == 0:
        yield {}
        return
    for index in range(longest):
        yield {name: elements[min(index, len(elements) - 1)] for name, elements in inputs.items()}


def _find_blocker(arguments: Mapping[str, Any], input_is_list: bool) -> ExecutionBlocker | None:
    for value in arguments.values():
        for element in value if input_is_list else (value,):
            if isinstance(element, ExecutionBlocker):
                return element
    return None


@dataclass
class Raised:
    """What an asynchronous call raised, carried as a value so that it cannot break the event loop."""

    error: BaseException | None

    def take(self) -> BaseException:
        """Give the exception away: a task that still held it would form a cycle with its traceback."""
        error, self.error = self.error, None
        return error if error is not None else RuntimeError("the result of an asynchronous call was read twice")


@dataclass(frozen=True)
class Caller:
    """How the methods of one node are called.

    rng      the executor's own states of the process-wide generators, or None
    blocked  told about each call that a blocker prevents; gives the blocker to pass on
    """

    prompt_id: str
    node_id: str
    input_is_list: bool
    rng: GlobalRng | None = None
    blocked: Blocked | None = None

    def start(self, method: Callable[..., Any], inputs: Mapping[str, Sequence[Any]]) -> list[Any]:
        """One call per slice, in order. A coroutine function gives an asyncio task per call, whose result may be `Raised`.

        Raises what the method raises, and Interrupted before a call.
        """
        results: list[Any] = []
        asynchronous = inspect.iscoroutinefunction(method)
        for index, arguments in enumerate(slices(inputs, self.input_is_list)):
            comfy.control.check()
            blocker = _find_blocker(arguments, self.input_is_list)
            if blocker is not None:
                results.append(self.blocked(blocker) if self.blocked is not None else blocker)
            elif asynchronous:
                results.append(asyncio.get_running_loop().create_task(self._later(method, arguments, index)))
            else:
                results.append(self._now(method, arguments, index))
        return results

    async def run(self, method: Callable[..., Any], inputs: Mapping[str, Sequence[Any]]) -> list[Any]:
        """Like `start`, waiting for every call; raises what the first failing call raised."""
        results = self.start(method, inputs)
        tasks = [result for result in results if isinstance(result, asyncio.Task)]
        if tasks:
            await asyncio.wait(tasks)
        return [finished(result) for result in results]

    def generators(self) -> AbstractContextManager[None]:
        """Where code of the node runs: with this executor's generators swapped in when its class asks for it."""
        return self.rng.swapped_in() if self.rng is not None else nullcontext()

    def _now(self, method: Callable[..., Any], arguments: Mapping[str, Any], index: int) -> Any:
        GraphBuilder.set_default_prefix(self.node_id, index, 0)
        with CurrentNodeContext(self.prompt_id, self.node_id, index), self.generators(), _models_kept():
            return method(**arguments)

    async def _later(self, method: Callable[..., Coroutine[Any, Any, Any]], arguments: Mapping[str, Any], index: int) -> Any:
        GraphBuilder.set_default_prefix(self.node_id, index, 0)
        with CurrentNodeContext(self.prompt_id, self.node_id, index):
            try:
                coroutine = method(**arguments)
                return await (coroutine if self.rng is None else Stepped(coroutine, self.rng))
            except asyncio.CancelledError as error:
                if _cancelled_from_outside():
                    raise
                return Raised(error)
            except BaseException as error:  # SystemExit in a task would tear down the loop
                return Raised(error)


def _models_kept() -> AbstractContextManager[None]:
    """Where a node's models stay on the lane's device, however many it brings; outside a lane there is no device."""
    lane = context.current_or_none()
    return lane.resident.using() if lane is not None else nullcontext()


def _cancelled_from_outside() -> bool:
    task = asyncio.current_task()
    cancelling = getattr(task, "cancelling", None)  # Python 3.11
    return cancelling is None or cancelling() > 0


def finished(result: Any) -> Any:
    """The value of one call of `Caller.start`; raises what an asynchronous call raised."""
    if isinstance(result, asyncio.Task):
        result = result.result()
    if isinstance(result, Raised):
        error = result.take()
        try:
            raise error
        finally:
            del error  # this frame is in its traceback
    return result
