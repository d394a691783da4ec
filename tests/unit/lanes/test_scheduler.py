from __future__ import annotations

import itertools
import json
import threading
from pathlib import Path

import pytest

from comfy.errors import PromptIdInUse, QueueFull, ShuttingDown
from comfy_execution.job import JobState
from tests.unit.lanes.fakes import House


def wait_until_refused(house: House) -> None:
    for attempt in itertools.count():
        try:
            house.send(f"late{attempt}", target=0)
        except ShuttingDown:
            return


def names(house: House, prompt_id: str) -> list[str]:
    return [event.name for event in house.messages() if event.data.get("prompt_id") == prompt_id]


def test_a_pinned_prompt_runs_on_its_lane_and_history_says_so() -> None:
    with House(3) as house:
        assert house.send("a", target=2) == 2
        house.wait_ended("a")
        assert house.script.ran == [("a", 2)]
        record = json.loads(house.scheduler.history.one("a"))["a"]
        assert record["gpu_id"] == 2
        assert record["status"] == {"status_str": "success", "completed": True, "messages": [["execution_success", {"prompt_id": "a"}]]}


def test_prompts_without_a_target_spread_over_the_lanes() -> None:
    with House(3) as house:
        assert sorted(house.send(name, gated=True) for name in "abc") == [0, 1, 2]


def test_the_router_prefers_the_lane_that_holds_the_model() -> None:
    with House(2) as house:
        house.devices[1].names = frozenset({"m.ckpt"})
        house.send("warm", target=1)
        house.wait_ended("warm")
        assert house.send("a", nodes={"1": {"inputs": {"ckpt_name": "m.ckpt"}}}) == 1


def test_lanes_outside_auto_gpus_take_only_jobs_that_name_them() -> None:
    with House(3, auto_lanes=(0, 1)) as house:
        assert {house.send(name, gated=True) for name in "abcd"} == {0, 1}
        assert house.send("vip", target=2) == 2
        house.wait_ended("vip")
        assert {lane for _, lane in house.script.ran if _ != "vip"} <= {0, 1}  # not even by moving to the idle lane


def test_a_default_target_takes_every_prompt_without_a_header() -> None:
    with House(3, default_target=1) as house:
        assert [house.send(name, gated=True) for name in "abc"] == [1, 1, 1]


def test_a_lane_that_ran_dry_takes_over_an_unpinned_job_only() -> None:
    with House(2) as house:
        house.send("long", gated=True, target=0)
        house.send("short", gated=True, target=1)
        house.wait_started("long")
        house.wait_started("short")
        house.send("pinned", target=0)
        house.send("free1")  # to lane 1: fewer jobs
        house.send("free0")  # to lane 0
        house.open("short")
        house.wait_ended("short", "free1", "free0")
        assert ("free0", 1) in house.script.ran
        house.open("long")
        house.wait_ended("pinned")
        assert ("pinned", 0) in house.script.ran


def test_a_longer_queue_of_pinned_jobs_does_not_keep_an_unpinned_one_from_moving() -> None:
    with House(3) as house:
        for lane in range(3):
            house.send(f"long{lane}", gated=True, target=lane)
            house.wait_started(f"long{lane}")
        for name in ("pinned1", "pinned2"):
            house.send(name, target=0)
        assert house.send("free") == 1
        house.open("long2")
        house.wait_ended("free")
        assert ("free", 2) in house.script.ran
        house.open("long0")
        house.open("long1")
        house.wait_ended("pinned1", "pinned2")


def test_history_is_written_before_status_and_the_null_executing() -> None:
    with House(1) as house:
        seen = []
        sink = house._sink
        house.scheduler.set_sink(lambda event: (seen.append((getattr(event, "name", "?"), "a" in house.scheduler.history)), sink(event))[1])
        house.send("a")
        house.wait_ended("a")
    assert seen == [
        ("status", False),
        ("status", False),
        ("execution_start", False),
        ("execution_success", False),
        ("status", True),
        ("executing", True),
    ]


def test_queue_remaining_counts_waiting_and_running() -> None:
    with House(1) as house:
        house.send("a", gated=True)
        house.wait_started("a")
        house.send("b")
        remaining = [event.data["status"]["exec_info"]["queue_remaining"] for event in house.messages("status")]
        assert remaining == [1, 1, 2]
        house.open("a")
        house.wait_ended("b")
        assert house.messages("status")[-1].data["status"]["exec_info"]["queue_remaining"] == 0


@pytest.mark.parametrize("do", ["fail", "raise", "oom always"])
def test_a_broken_job_fails_and_the_lane_runs_the_next(do: str) -> None:
    with House(1) as house:
        house.send("bad", do)
        house.send("good")
        house.wait_ended("bad", "good")
        assert json.loads(house.scheduler.history.one("bad"))["bad"]["status"]["status_str"] == "error"
        assert json.loads(house.scheduler.history.one("good"))["good"]["status"]["completed"]
        assert names(house, "bad")[-2:] == ["execution_error", "executing"]


def test_out_of_memory_frees_the_lane_and_tries_once_more() -> None:
    with House(2) as house:
        house.send("a", "oom", target=0)
        house.wait_ended("a")
        assert house.script.ran == [("a", 0), ("a", 0)]
        assert [device.unloads for device in house.devices] == [1, 0]
        assert house.executors[0].resets == 1
        assert names(house, "a") == ["execution_start", "execution_start", "execution_success", "executing"]


def test_out_of_memory_twice_fails_the_job_with_one_error() -> None:
    with House(1) as house:
        house.send("a", "oom always")
        house.wait_ended("a")
        assert len(house.script.ran) == 2
        assert names(house, "a").count("execution_error") == 1


def test_interrupt_by_id_by_lane_and_of_all() -> None:
    with House(3) as house:
        for lane, name in enumerate("abc"):
            house.send(name, gated=True, target=lane)
            house.wait_started(name)
        house.send("waiting", target=0)
        assert house.scheduler.interrupt("nobody") == []
        assert house.scheduler.interrupt("waiting") == []
        assert house.scheduler.interrupt("a", lane=1) == []
        assert house.scheduler.interrupt("b") == ["b"]
        assert house.scheduler.interrupt(lane=2) == ["c"]
        for name in "abc":
            house.open(name)
        house.wait_ended("a", "b", "c", "waiting")
        ended = {name: json.loads(house.scheduler.history.one(name))[name]["status"]["status_str"] for name in ("a", "b", "c", "waiting")}
        assert ended == {"a": "success", "b": "error", "c": "error", "waiting": "success"}


def test_interrupt_without_a_name_stops_every_running_job() -> None:
    with House(2) as house:
        for lane, name in enumerate("ab"):
            house.send(name, gated=True, target=lane)
            house.wait_started(name)
        assert sorted(house.scheduler.interrupt()) == ["a", "b"]


def test_interrupt_between_take_and_start_is_not_lost() -> None:
    with House(1) as house:
        lane = house.scheduler._lanes[0]
        started = house.scheduler.handle

        def interrupt_first(event: object) -> None:
            if type(event).__name__ == "JobStarted":
                house.scheduler.interrupt("a")
            started(event)  # type: ignore[arg-type]

        lane._publish = interrupt_first
        house.send("a")
        house.wait_ended("a")
        assert json.loads(house.scheduler.history.one("a"))["a"]["status"]["messages"][-1][0] == "execution_interrupted"


def test_clear_and_delete_touch_waiting_jobs_of_that_lane_only() -> None:
    with House(2) as house:
        for lane in (0, 1):
            house.send(f"run{lane}", gated=True, target=lane)
            house.wait_started(f"run{lane}")
            for i in range(3):
                house.send(f"{lane}{i}", target=lane)
        assert house.scheduler.delete(["00", "10", "run0", "none"], lane=0) == 1
        assert house.scheduler.delete(["10"]) == 1
        assert house.scheduler.clear(lane=0) == 2
        assert [row.prompt_id for row in house.scheduler.queue().pending] == ["11", "12"]
        assert house.scheduler.clear() == 2
        assert sorted(row.prompt_id for row in house.scheduler.queue().running) == ["run0", "run1"]


def test_an_id_in_the_history_or_the_queue_is_refused() -> None:
    with House(1) as house:
        house.send("a")
        house.wait_ended("a")
        with pytest.raises(PromptIdInUse):
            house.send("a")
        house.scheduler.history.clear()
        house.send("a")


def test_a_full_lane_refuses() -> None:
    with House(1, capacity=2) as house:
        house.send("run", gated=True)
        house.wait_started("run")
        house.send("a")
        house.send("b")
        with pytest.raises(QueueFull):
            house.send("c")


def test_free_reaches_every_lane_and_is_done_by_its_own_thread() -> None:
    with House(2) as house:
        house.scheduler.free(unload_models=True)
        house.scheduler.free(1, free_memory=True)
        house.send("a", target=0)
        house.send("b", target=1)
        house.wait_ended("a", "b")
        assert [device.unloads for device in house.devices] == [1, 2]
        assert [executor.resets for executor in house.executors] == [0, 1]


def test_a_stop_finishes_running_jobs_and_saves_waiting_ones_for_the_next_start(tmp_path: Path) -> None:
    saved = tmp_path / "user" / "queue.json"
    with House(2, saved=saved) as house:
        house.send("run", gated=True, target=1)
        house.wait_started("run")
        house.send("second", target=1, number=7.5, client_id="c", api_key_comfy_org="SECRET")
        house.send("first", target=1, number=-1)
        closing = threading.Thread(target=house.scheduler.close, args=(20, saved))
        closing.start()
        wait_until_refused(house)
        house.open("run")
        closing.join(20)
    assert [ran for ran in house.script.ran if ran[1] == 1] == [("run", 1)]
    assert "SECRET" not in saved.read_text()
    assert saved.stat().st_mode & 0o777 == 0o600
    again = House(2, saved=saved)
    with again:
        again.wait_ended("first", "second")
        assert [ran for ran in again.script.ran if ran[1] == 1] == [("first", 1), ("second", 1)]
        assert not saved.exists()
        assert again.scheduler.next_number() >= 8
        assert json.loads(again.scheduler.history.one("second"))["second"]["prompt"][3] == {"client_id": "c"}


def test_a_job_that_outlasts_the_deadline_is_stopped_and_kept(tmp_path: Path) -> None:
    saved = tmp_path / "queue.json"
    house = House(1, saved=saved)
    house.scheduler.start(saved)
    house.send("slow", gated=True)
    house.wait_started("slow")
    real_stop = house.scheduler._lanes[0].stop
    house.scheduler._lanes[0].stop = lambda prompt_id: (real_stop(prompt_id), house.open(prompt_id))[0]  # type: ignore[method-assign]
    assert house.scheduler.close(0.0, saved)
    assert [entry["prompt_id"] for entry in json.loads(saved.read_text())["jobs"]] == ["slow"]


def test_a_saved_queue_that_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    saved = tmp_path / "queue.json"
    saved.write_text('{"jobs": [{"lane": 0, "prompt_id": 3}]}')
    with House(1, saved=saved) as house:
        assert house.scheduler.remaining() == 0
        assert (tmp_path / "queue.json.bad").exists()


def test_a_saved_job_of_a_lane_that_is_gone_runs_elsewhere(tmp_path: Path) -> None:
    saved = tmp_path / "queue.json"
    saved.write_text(
        json.dumps(
            {
                "jobs": [
                    {
                        "lane": 3,
                        "prompt_id": "x",
                        "number": 1.0,
                        "prompt": {},
                        "outputs": ["1"],
                        "extra_data": {},
                        "pinned": 3,
                        "attempt": 0,
                        "accepted_at": 0.0,
                    }
                ]
            }
        )
    )
    with House(1, saved=saved) as house:
        house.wait_ended("x")


def test_states_that_the_store_shows_follow_the_job() -> None:
    with House(1) as house:
        house.send("a", gated=True)
        house.wait_started("a")
        row = house.store.row("a")
        assert row is not None
        assert row.state is JobState.RUNNING
        assert house.scheduler.lanes()[0].running_count == 1
        assert house.scheduler.running_of("nobody") == []
        house.open("a")
        house.wait_ended("a")
        assert house.store.row("a") is None
