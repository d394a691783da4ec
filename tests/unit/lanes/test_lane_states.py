"""Lanes that operators pause, that stall, fail three times in a row, or lose their GPU."""

from __future__ import annotations

import json
import logging
import queue
import threading
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from comfy.errors import DeviceFailed, LaneStateError, LaneUnknown
from comfy_execution import saved_queue
from comfy_execution.job import Job, JobState
from comfy_execution.lane_state import TRANSITIONS, LaneEvent, LaneState, step
from tests.unit.lanes.fakes import House


def states(house: House) -> list[str]:
    return [view.lane.state for view in house.scheduler.lanes()]


def outcome(house: House, prompt_id: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(house.scheduler.history.one(prompt_id))[prompt_id]["status"]
    return record


@pytest.mark.parametrize(("state", "event"), list(product(LaneState, LaneEvent)))
def test_a_step_that_the_table_does_not_list_changes_nothing(state: LaneState, event: LaneEvent) -> None:
    if (state, event) in TRANSITIONS:
        assert step(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(LaneStateError):
            step(state, event)


def test_every_state_but_the_one_that_is_only_shown_is_reached() -> None:
    assert set(TRANSITIONS.values()) == set(LaneState) - {LaneState.STALLED}


# pausing


def test_a_paused_lane_ends_its_job_gives_away_auto_jobs_and_keeps_pinned_ones() -> None:
    with House(2) as house:
        house.send("busy0", gated=True, target=0)
        house.send("busy1", gated=True, target=1)
        house.wait_started("busy0")
        house.wait_started("busy1")
        assert house.send("auto") == 0
        house.send("pinned", target=0)
        house.scheduler.pause(0, True)
        assert states(house) == ["pausing", "running"]
        assert house.store.row("auto").lane == 1  # type: ignore[union-attr]
        assert house.store.row("pinned").lane == 0  # type: ignore[union-attr]
        assert [house.send(f"late{n}") for n in range(3)] == [1, 1, 1]
        house.open("busy0")
        house.wait_ended("busy0")
        assert states(house)[0] == "paused"
        house.open("busy1")
        house.wait_ended("busy1", "auto", "late0", "late1", "late2")
        assert outcome(house, "busy0")["completed"]
        assert {lane for name, lane in house.script.ran if name not in ("busy0",)} == {1}
        assert house.store.row("pinned").state is JobState.QUEUED  # type: ignore[union-attr]
        house.scheduler.pause(0, False)
        house.wait_ended("pinned")
        assert ("pinned", 0) in house.script.ran


def test_a_lane_that_comes_back_takes_over_what_waits_elsewhere() -> None:
    with House(2) as house:
        house.scheduler.pause(1, True)
        house.send("long", gated=True)
        house.wait_started("long")
        assert house.send("waits") == 0
        house.scheduler.pause(1, False)
        house.wait_ended("waits")
        assert ("waits", 1) in house.script.ran


def test_with_every_lane_paused_prompts_are_accepted_and_wait() -> None:
    with House(2) as house:
        for lane in (0, 1):
            house.scheduler.pause(lane, True)
        house.send("a")
        assert house.script.ran == []
        assert states(house) == ["paused", "paused"]
        assert [view.takes for view in house.scheduler.lanes()] == [False, False]
        house.scheduler.pause(1, False)
        house.wait_ended("a")
        assert house.script.ran == [("a", 1)]


def test_a_pause_of_one_lane_does_not_send_prompts_to_a_lane_that_is_kept_for_others() -> None:
    with House(2, auto_lanes=(0,)) as house:
        house.scheduler.pause(0, True)
        assert house.send("a") == 0
        house.scheduler.pause(0, False)
        house.wait_ended("a")
        assert house.script.ran == [("a", 0)]


def test_pausing_twice_is_pausing_and_a_paused_lane_still_frees() -> None:
    with House(1) as house:
        house.scheduler.pause(0, True)
        house.scheduler.pause(0, True)
        house.scheduler.free(0, unload_models=True)
        house.scheduler.pause(0, False)
        house.send("a")
        house.wait_ended("a")
        assert house.devices[0].unloads == 1


def test_an_auto_job_that_runs_out_of_memory_on_a_pausing_lane_is_tried_elsewhere() -> None:
    with House(2) as house:
        house.send("other", gated=True, target=1)
        house.wait_started("other")
        assert house.send("big", "oom", gated=True) == 0
        house.wait_started("big")
        house.scheduler.pause(0, True)
        house.open("big")
        house.open("other")
        house.wait_ended("big", "other")
        assert [ran for ran in house.script.ran if ran[0] == "big"] == [("big", 0), ("big", 1)]


@pytest.mark.parametrize("index", [-1, 2])
def test_a_lane_that_is_not_there_cannot_be_paused(index: int) -> None:
    with House(2) as house, pytest.raises(LaneUnknown):
        house.scheduler.pause(index, True)


# stalling


def test_a_lane_whose_job_shows_no_progress_looks_stalled_until_it_does() -> None:
    with House(2) as house:
        assert house.send("a", gated=True) == 0
        house.wait_started("a")
        house.now = 600.0
        assert states(house) == ["running", "idle"]
        house.now = 600.5
        assert states(house) == ["stalled", "idle"]
        assert house.scheduler.lanes()[0].lane.quiet_s == 600.5
        house.executors[0]._tell("executing", Job("a", 0, {}, ()))
        assert states(house) == ["running", "idle"]


def test_the_router_avoids_a_stalled_lane() -> None:
    with House(2) as house:
        house.send("stuck", gated=True, target=0)
        house.wait_started("stuck")
        for name in "abc":
            house.send(name, gated=True, target=1)
        house.now = 601.0
        house.wait_started("a")
        house.executors[1]._tell("executing", Job("a", 0, {}, ()))
        assert house.send("next") == 1


# failing


def test_three_failures_in_a_row_give_the_lane_a_new_executor(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with House(1) as house:
        for n, do in enumerate(("fail", "fail", "ok", "fail", "fail", "fail", "ok")):
            house.send(f"p{n}", do)
            house.wait_ended(f"p{n}")
    assert len(house.executors) == 2
    assert house.scheduler.lanes()[0].lane.totals.rebuilds == 1
    assert sum("gets a new executor" in line for line in caplog.messages) == 1
    assert outcome(house, "p6")["completed"]


@pytest.mark.parametrize("do", ["fatal", "hidden"])
def test_a_fatal_error_fails_every_lane_ends_running_jobs_and_keeps_waiting_ones(tmp_path: Path, do: str) -> None:
    saved = tmp_path / "queue.json"
    asked: queue.SimpleQueue[str] = queue.SimpleQueue()
    house = House(2, saved=saved)
    house.scheduler.on_failed(asked.put)
    with house:
        house.send("innocent", gated=True, target=1)
        house.send("guilty", do, gated=True, target=0)
        house.wait_started("innocent")
        house.wait_started("guilty")
        house.send("waits0", target=0)
        house.send("waits1", target=1)
        house.open("guilty")
        house.wait_ended("guilty", "innocent")
        assert asked.get(timeout=20) == house.scheduler.failed
        assert asked.empty()
        assert states(house) == ["failed", "failed"]
        assert [job.prompt_id for _, job in saved_queue.load(saved)] == ["waits0", "waits1"]
        name, data = outcome(house, "innocent")["messages"][-1]
        assert (name, data["exception_type"]) == ("execution_error", "DeviceFailed")
        assert "[GPU 0] CUDA error 7" in data["exception_message"]
        with pytest.raises(DeviceFailed):
            house.send("late")
        with pytest.raises(LaneStateError):
            house.scheduler.pause(0, False)
    assert sorted(name for name, _ in house.script.ran) == ["guilty", "innocent"]  # two lanes: either may begin
    assert house.store.row("innocent") is None


def test_the_next_start_runs_what_waited_when_a_gpu_failed(tmp_path: Path) -> None:
    saved, ended = tmp_path / "queue.json", threading.Event()
    with House(1, saved=saved) as house:
        house.send("guilty", "fatal", gated=True)
        house.wait_started("guilty")
        house.send("waits")
        house.scheduler.on_failed(lambda reason: ended.set())
        house.open("guilty")
        assert ended.wait(20)
    with House(1, saved=saved) as again:
        again.wait_ended("waits")
        assert again.script.ran == [("waits", 0)]


@pytest.mark.parametrize("do", ["oom", "oom always", "fail", "raise"])
def test_no_other_failure_is_fatal(do: str) -> None:
    with House(2) as house:
        for n in range(4):
            house.send(f"p{n}", do, target=0)
            house.wait_ended(f"p{n}")
        assert house.scheduler.failed is None
        assert "failed" not in states(house)
        house.send("good", target=0)
        house.wait_ended("good")
        assert outcome(house, "good")["completed"]
