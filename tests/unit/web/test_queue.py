from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from comfy.web.queue import lane_facts
from tests.unit.web.helpers import Site, graph, with_site

ON_0, ON_1 = {"X-TARGET-GPU": "0"}, {"X-TARGET-GPU": "1"}


async def fill(site: Site) -> None:
    """a runs and c waits on lane 0; b runs and d waits on lane 1."""
    for prompt_id, lane, gated in [("a", 0, True), ("b", 1, True), ("c", 0, False), ("d", 1, False)]:
        if gated:
            site.house.script.gate(prompt_id)
        body = {"prompt": graph(), "prompt_id": prompt_id, "extra_data": {"x": prompt_id}}
        await site.json("POST", "/prompt", json=body, headers={"X-TARGET-GPU": str(lane)})
    for prompt_id in ("a", "b"):
        await site.wait(site.house.wait_started, prompt_id)


def ids(items: list[list[Any]]) -> list[str]:
    return [item[1] for item in items]


def test_the_queue_of_all_lanes_and_of_one() -> None:
    async def test(site: Site) -> None:
        await fill(site)
        queue = await site.json("GET", "/queue")
        assert list(queue) == ["queue_running", "queue_pending"]
        assert queue["queue_running"][0] == [0, "a", graph(), {"x": "a"}, ["1"]]
        assert (ids(queue["queue_running"]), ids(queue["queue_pending"])) == (["a", "b"], ["c", "d"])
        assert await site.json("GET", "/api/queue", headers={"X-TARGET-GPU": "auto"}) == queue
        one = await site.json("GET", "/queue", headers=ON_1)
        assert list(one) == ["queue_running", "queue_pending", "gpu_id"]
        assert (ids(one["queue_running"]), ids(one["queue_pending"]), one["gpu_id"]) == (["b"], ["d"], 1)

    with_site(test)


def test_an_empty_queue_has_the_standard_shape() -> None:
    async def test(site: Site) -> None:
        async with site.http.get("/queue") as answer:
            assert await answer.text() == '{"queue_running": [], "queue_pending": []}'

    with_site(test)


def test_all_queues_lane_by_lane() -> None:
    async def test(site: Site) -> None:
        await fill(site)
        every = await site.json("GET", "/queue/all")
        assert (every["total_running"], every["total_pending"]) == (2, 2)
        assert [(lane["gpu_id"], ids(lane["queue_running"]), ids(lane["queue_pending"])) for lane in every["queues"]] == [
            (0, ["a"], ["c"]),
            (1, ["b"], ["d"]),
        ]
        first = every["queues"][0]
        assert (first["running_count"], first["pending_count"], first["running_prompt_id"]) == (1, 1, "a")
        counts = await site.json("GET", "/queue/all?details=0")
        assert (counts["total_running"], counts["total_pending"]) == (2, 2)
        assert all("queue_running" not in lane and lane["pending_count"] == 1 for lane in counts["queues"])
        lanes = (await site.json("GET", "/lanes"))["lanes"]
        assert [(lane["gpu_id"], lane["device"], lane["state"]) for lane in lanes] == [(0, "cpu", "running"), (1, "cpu", "running")]
        debug = await site.json("GET", "/debug/queues")
        assert debug["queues"] == [{"gpu_id": 0, "queued": 1, "running": 1}, {"gpu_id": 1, "queued": 1, "running": 1}]

    with_site(test)


def test_the_estimated_wait_grows_with_the_queue() -> None:
    async def test(site: Site) -> None:
        lanes = (await site.json("GET", "/lanes"))["lanes"]
        assert [lane["estimated_wait_s"] for lane in lanes] == [None]
        await site.json("POST", "/prompt", json={"prompt": graph(), "prompt_id": "x"})
        await site.wait(site.house.wait_ended, "x")
        (view,) = site.house.scheduler.lanes()
        mean_s = view.lane.totals.run_s
        busy = replace(view, running_count=1, pending_count=2)
        assert lane_facts(busy)["estimated_wait_s"] == pytest.approx(3 * mean_s, abs=1e-3)
        assert lane_facts(view)["estimated_wait_s"] == 0

    with_site(test, lanes=1)


def test_the_debug_route_says_single_gpu_with_the_gate_off() -> None:
    async def test(site: Site) -> None:
        assert await site.json("GET", "/debug/queues") == {"mode": "single-gpu"}
        every = await site.json("GET", "/queue/all")
        assert [lane["gpu_id"] for lane in every["queues"]] == [0]

    with_site(test, lanes=1, multi_gpu=False)


@pytest.mark.parametrize(
    ("body", "headers", "left"),
    [
        ({"clear": True}, {}, []),
        ({"clear": True}, ON_0, ["d"]),
        ({"clear": False}, {}, ["c", "d"]),
        ({"delete": ["c"]}, {}, ["d"]),
        ({"delete": ["c"]}, ON_1, ["c", "d"]),
        ({"delete": ["c", "c", "a", "nope"]}, ON_0, ["d"]),
        ({"delete": [], "clear": True}, ON_1, ["c"]),
        ({}, {}, ["c", "d"]),
    ],
)
def test_clearing_and_deleting_touch_waiting_jobs_of_the_named_lane(body: Any, headers: dict[str, str], left: list[str]) -> None:
    async def test(site: Site) -> None:
        await fill(site)
        await site.empty("POST", "/queue", json=body, headers=headers)
        queue = await site.json("GET", "/queue")
        assert (ids(queue["queue_running"]), ids(queue["queue_pending"])) == (["a", "b"], left)

    with_site(test)


@pytest.mark.parametrize("body", [None, [], "x", 1, {"delete": "c"}, {"clear": True, "delete": [["c"]]}, {"delete": [None]}])
def test_a_bad_body_changes_nothing(body: Any) -> None:
    async def test(site: Site) -> None:
        await fill(site)
        assert (await site.error("POST", "/queue", data=json.dumps(body)))["type"] == "body_invalid"
        assert (await site.error("POST", "/queue", data=b"{"))["type"] == "invalid_json"
        assert ids((await site.json("GET", "/queue"))["queue_pending"]) == ["c", "d"]

    with_site(test)


@pytest.mark.parametrize(
    ("data", "headers", "stopped"),
    [
        (None, {}, {"a", "b"}),
        (b"{}", {}, {"a", "b"}),
        (b"null", {}, {"a", "b"}),
        (b"not json", {}, {"a", "b"}),
        (b'{"prompt_id": null}', {}, {"a", "b"}),
        (None, ON_1, {"b"}),
        (b'{"prompt_id": "a"}', {}, {"a"}),
        (b'{"prompt_id": "a"}', ON_1, {"a"}),
        (b'{"prompt_id": "c"}', {}, set()),
        (b'{"prompt_id": "nope"}', {}, set()),
        (b'{"prompt_id": ""}', {}, set()),
    ],
)
def test_interrupting_stops_the_named_jobs_and_no_other(data: bytes | None, headers: dict[str, str], stopped: set[str]) -> None:
    async def test(site: Site) -> None:
        await fill(site)
        await site.empty("POST", "/interrupt", data=data, headers=headers)
        for prompt_id in ("a", "b"):
            site.house.open(prompt_id)
        await site.wait(site.house.wait_ended, "a", "b", "c", "d")
        history = await site.json("GET", "/history")
        assert {prompt_id for prompt_id, record in history.items() if not record["status"]["completed"]} == stopped

    with_site(test)


@pytest.mark.parametrize("data", [b"[]", b'"a"', b"5"])
def test_an_interrupt_that_might_mean_anything_is_refused(data: bytes) -> None:
    async def test(site: Site) -> None:
        await fill(site)
        assert (await site.error("POST", "/interrupt", data=data))["type"] == "body_invalid"
        assert len((await site.json("GET", "/queue"))["queue_running"]) == 2

    with_site(test)


@pytest.mark.parametrize(("headers", "unloads"), [({}, [1, 1]), (ON_1, [0, 1])])
def test_free_reaches_the_named_lane_or_all(headers: dict[str, str], unloads: list[int]) -> None:
    async def test(site: Site) -> None:
        await site.empty("POST", "/free", json={"unload_models": True, "free_memory": False}, headers=headers)
        for lane in ("0", "1"):  # a job after the chore: the lane has done it when the job ends
            await site.json("POST", "/prompt", json={"prompt": graph(), "prompt_id": lane}, headers={"X-TARGET-GPU": lane})
        await site.wait(site.house.wait_ended, "0", "1")
        assert [device.unloads for device in site.house.devices] == unloads
        await site.empty("POST", "/free", json={"unload_models": False})
        assert (await site.error("POST", "/free", data=b"[]"))["type"] == "body_invalid"

    with_site(test)
