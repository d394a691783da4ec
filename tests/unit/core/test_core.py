"""Errors, JSON, control, outbox, history."""

from __future__ import annotations

import json
import pickle
import threading
from concurrent.futures import Future

import pytest

from comfy import control, jsonio
from comfy.control import JobControl
from comfy.errors import ComfyError, Interrupted, OutOfDeviceMemory, PromptInvalid, QueueFull
from comfy_execution.events import Event, JobResult, Message
from comfy_execution.history import History
from comfy_execution.job import Job, JobState
from comfy_execution.outbox import Outbox


def test_an_error_tells_type_message_and_facts() -> None:
    error = OutOfDeviceMemory(device="cuda:1", needed_bytes=5)
    assert (error.type, error.http_status) == ("out_of_device_memory", 503)
    assert str(error) == "The model and its activations do not fit on the lane's GPU. (device='cuda:1', needed_bytes=5)"


@pytest.mark.parametrize("error", [QueueFull("x", lane=1), PromptInvalid({"type": "t", "message": "m", "details": "d"}, {"1": {}})])
def test_errors_pickle_with_their_facts(error: ComfyError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_an_interrupt_passes_a_nodes_except_exception() -> None:
    job = JobControl("a")
    job.stop.set()

    def node() -> None:
        try:
            control.check()
        except Exception:
            pytest.fail("swallowed")

    with control.entered(job), pytest.raises(Interrupted):
        node()
    control.check()  # outside a job nothing is stopped


def test_another_thread_is_outside_the_job() -> None:
    seen: list[object] = []
    with control.entered(JobControl("a")):
        thread = threading.Thread(target=lambda: seen.append(control.current()))
        thread.start()
        thread.join()
    assert seen == [None]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": float("nan"), "b": [float("inf"), 1.5]}, '{"a": null, "b": [null, 1.5]}'),
        ((1, "é"), '[1, "\\u00e9"]'),
        ({1: {2.5, 1}}, '{"1": [1, 2.5]}'),
        ({None: True, True: None}, '{"null": true, "true": null}'),
        ({("a", 1): 2}, "{\"('a', 1)\": 2}"),
    ],
)
def test_json_never_holds_what_json_has_not(value: object, text: str) -> None:
    assert jsonio.dumps(value) == text
    json.loads(text)


def message(name: str) -> Message:
    return Message(name, {})


def test_messages_pass_at_once_and_the_last_waits_for_release() -> None:
    out: list[Event] = []
    box = Outbox(out.append)
    box.publish(message("executing"))
    box.publish(message("execution_error"))
    box.publish(message("after"))
    assert [event.name for event in out if isinstance(event, Message)] == ["executing"]
    box.release()
    assert [event.name for event in out if isinstance(event, Message)] == ["executing", "execution_error", "after"]


def test_a_dropped_ending_is_never_seen() -> None:
    out: list[Event] = []
    box = Outbox(out.append)
    box.publish(message("execution_error"))
    box.drop()
    box.publish(message("execution_success"))
    box.release()
    assert out == [message("execution_success")]


def test_events_wait_in_order_until_the_file_is_on_disk() -> None:
    out: list[Event] = []
    box = Outbox(out.append)
    first: Future[object] = Future()
    second: Future[object] = Future()
    box.publish(message("executing"))
    box.hold(first)
    box.hold(second)
    box.publish(message("executed"))
    box.publish(message("execution_success"))
    box.release()
    second.set_result(None)
    assert out == [message("executing")]
    first.set_result(None)
    assert [event.name for event in out if isinstance(event, Message)] == ["executing", "executed", "execution_success"]


def result() -> JobResult:
    return JobResult(JobState.SUCCEEDED, {"9": {"images": [float("nan")]}}, {}, ())


def job(prompt_id: str) -> Job:
    return Job(prompt_id, 0, {}, ())


def test_history_keeps_the_newest_within_its_bounds() -> None:
    history = History(max_entries=3)
    for name in "abcde":
        history.put(job(name), result())
    assert list(json.loads(history.get())) == ["c", "d", "e"]
    small = History(max_bytes=300)
    for name in "abcde":
        small.put(job(name), result())
    assert list(json.loads(small.get()))[-1] == "e"
    assert len(small.get()) < 400


@pytest.mark.parametrize(
    ("max_items", "offset", "ids"),
    [
        (None, None, "abcde"),
        (2, None, "de"),
        (2, -1, "de"),
        (0, None, ""),
        (-3, None, ""),
        (0, 0, ""),
        (2, 1, "bc"),
        (None, 3, "de"),
        (5, 9, ""),
        (9, 0, "abcde"),
    ],
)
def test_history_pages(max_items: int | None, offset: int | None, ids: str) -> None:
    history = History()
    for name in "abcde":
        history.put(job(name), result())
    assert "".join(json.loads(history.get(max_items, offset))) == ids


def test_history_forgets_on_request() -> None:
    history = History()
    for name in "abc":
        history.put(job(name), result(), gpu_id=2)
    history.delete(["b", "nobody"])
    assert json.loads(history.one("b")) == {}
    assert json.loads(history.one("c"))["c"]["gpu_id"] == 2
    history.clear()
    assert len(history) == 0
