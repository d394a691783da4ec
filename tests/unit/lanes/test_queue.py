from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy.errors import JobStateError, PromptIdInUse, QueueFull
from comfy_execution.job import Job, JobEvent, JobState
from comfy_execution.queue import LIVE, WAITING, Closed, MemoryJobStore, Nothing, PromptQueue


def job(prompt_id: str, number: float = 0) -> Job:
    return Job(prompt_id, number, {}, ("1",))


def drain(queue: PromptQueue) -> list[str]:
    ids = []
    while isinstance(item := queue.get(0), Job):
        ids.append(item.prompt_id)
    return ids


def test_the_smaller_number_runs_first_and_ties_go_by_id() -> None:
    queue = PromptQueue(0, MemoryJobStore())
    for prompt_id, number in [("late", 5), ("b", 1), ("a", 1), ("front", -3), ("half", 0.5)]:
        queue.put(job(prompt_id, number))
    assert drain(queue) == ["front", "half", "a", "b", "late"]


def test_an_id_lives_once_in_the_process() -> None:
    store = MemoryJobStore()
    PromptQueue(0, store).put(job("x"))
    with pytest.raises(PromptIdInUse):
        PromptQueue(1, store).put(job("x"))


def test_a_full_lane_refuses_and_the_others_do_not() -> None:
    store = MemoryJobStore()
    full = PromptQueue(0, store, capacity=1)
    full.put(job("a"))
    with pytest.raises(QueueFull) as raised:
        full.put(job("b"))
    assert raised.value.http_status == 429
    PromptQueue(1, store, capacity=1).put(job("b"))
    store.check()


def test_only_a_waiting_job_of_this_lane_is_taken_back() -> None:
    store = MemoryJobStore()
    queue, other = PromptQueue(0, store), PromptQueue(1, store)
    queue.put(job("a"))
    assert other.take_back("a") is None
    taken = queue.take_back("a")
    assert taken is not None
    assert taken.prompt_id == "a"
    assert store.count(LIVE) == 0
    queue.put(job("b"))
    assert isinstance(queue.get(0), Job)
    assert queue.take_back("b") is None
    assert store.row("b") is not None


def test_a_moved_job_waits_on_the_other_lane_only() -> None:
    store = MemoryJobStore()
    queue, other = PromptQueue(0, store), PromptQueue(1, store)
    queue.put(job("a"))
    other.adopt("a")
    assert drain(queue) == []
    assert drain(other) == ["a"]
    with pytest.raises(JobStateError):
        queue.adopt("a")  # it runs
    store.check()


def test_chores_come_before_jobs_and_close_ends_waiting() -> None:
    queue = PromptQueue(0, MemoryJobStore())
    queue.put(job("a"))
    queue.put_chore(lambda: None)
    assert callable(queue.get(0))
    assert isinstance(queue.get(0), Job)
    assert isinstance(queue.get(0), Nothing)
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(queue.get()))
    thread.start()
    queue.close()
    thread.join(20)
    assert isinstance(got[0], Closed)


def test_closed_leaves_waiting_jobs_in_the_store() -> None:
    queue = PromptQueue(0, MemoryJobStore())
    queue.put(job("a"))
    queue.close()
    assert isinstance(queue.get(0), Closed)
    assert [row.prompt_id for row in queue.store.rows(WAITING)] == ["a"]


def test_four_getters_and_four_putters_lose_and_double_nothing() -> None:
    store = MemoryJobStore()
    queues = [PromptQueue(lane, store) for lane in range(4)]
    got: list[list[str]] = [[] for _ in queues]

    def take(lane: int) -> None:
        while len(got[lane]) < 50:
            item = queues[lane].get(20)
            assert isinstance(item, Job)
            got[lane].append(item.prompt_id)

    takers = [threading.Thread(target=take, args=(lane,)) for lane in range(4)]
    putters = [
        threading.Thread(target=lambda lane=lane: [queues[lane].put(job(f"{lane}-{i}", -i)) for i in range(50)]) for lane in range(4)
    ]
    for thread in takers + putters:
        thread.start()
    for thread in takers + putters:
        thread.join(30)
    assert sorted(prompt_id for ids in got for prompt_id in ids) == sorted(f"{lane}-{i}" for lane in range(4) for i in range(50))
    store.check()


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["add", "take", "move", "withdraw", "finish", "saved", "retry", "fail"]), st.integers(0, 5), st.integers(0, 1)
    )
)


@settings(max_examples=60, deadline=None)
@given(ACTIONS)
def test_the_books_balance_whatever_is_asked(actions: list[tuple[str, int, int]]) -> None:
    store = MemoryJobStore()
    for action, n, lane in actions:
        prompt_id = str(n)
        try:
            if action == "add":
                store.add(job(prompt_id, n), lane, 3)
            elif action == "take":
                store.take(lane)
            elif action == "move":
                store.move(prompt_id, lane)
            elif action == "withdraw":
                store.withdraw(prompt_id, lane)
            else:
                store.advance(prompt_id, JobEvent(action))
        except (PromptIdInUse, QueueFull, JobStateError):
            pass
        store.check()
    waiting = {row.prompt_id for row in store.rows(WAITING)}
    taken = {row.prompt_id for lane in (0, 1) for row in iter(lambda lane=lane: store.take(lane), None)}
    assert waiting == taken
    assert not store.count((JobState.QUEUED,))
