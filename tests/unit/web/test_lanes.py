"""What operators and load balancers ask of lanes over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from comfy.web.lanes import is_ready
from tests.unit.web.helpers import Site, graph, with_site


def lanes(*states: str) -> list[dict[str, Any]]:
    return [{"gpu_id": index, "state": state, "quiet_s": 0.0} for index, state in enumerate(states)]


def test_health_and_readiness() -> None:
    async def test(site: Site) -> None:
        assert await site.json("GET", "/health") == {"status": "ok"}
        assert await site.json("GET", "/ready") == {"status": "ready", "lanes": lanes("idle", "idle")}
        site.house.scheduler.accepting = False
        assert await site.json("GET", "/ready", 503) == {"status": "not ready", "lanes": lanes("idle", "idle")}
        assert await site.json("GET", "/health") == {"status": "ok"}
        site.server._scheduler = None
        assert not is_ready(None)
        assert await site.json("GET", "/ready", 503) == {"status": "not ready", "lanes": []}
        assert (await site.error("GET", "/queue", 503))["type"] == "not_ready"
        site.server._scheduler = site.house.scheduler

    with_site(test)


def test_a_lane_is_taken_out_and_brought_back() -> None:
    async def test(site: Site) -> None:
        answer = await site.json("POST", "/lanes/1", json={"state": "paused"})
        assert (answer["gpu_id"], answer["state"], answer["takes_auto_jobs"]) == (1, "paused", False)
        assert await site.json("GET", "/ready") == {"status": "ready", "lanes": lanes("idle", "paused")}
        await site.json("POST", "/api/lanes/0", json={"state": "paused"})
        assert (await site.json("GET", "/ready", 503))["status"] == "not ready"
        accepted = await site.json("POST", "/prompt", json={"prompt": graph()})
        assert [queue["pending_count"] for queue in (await site.json("GET", "/queue/all"))["queues"]] == [1, 0]
        assert (await site.json("POST", "/lanes/0", json={"state": "running"}))["takes_auto_jobs"]
        await site.wait(site.house.wait_ended, accepted["prompt_id"])

    with_site(test)


@pytest.mark.parametrize("body", ["{}", '{"state": "stopped"}', '{"state": null}', '{"state": ["paused"]}', '{"state": NaN}', "[]"])
def test_any_other_state_is_refused(body: str) -> None:
    async def test(site: Site) -> None:
        assert (await site.error("POST", "/lanes/0", data=body))["type"] == "body_invalid"
        assert await site.json("GET", "/ready") == {"status": "ready", "lanes": lanes("idle", "idle")}

    with_site(test)


@pytest.mark.parametrize("index", ["2", "-1", "+0", "a", "%D9%A3", "9" * 30, "0.0"])
def test_a_lane_that_is_not_there(index: str) -> None:
    async def test(site: Site) -> None:
        error = await site.error("POST", f"/lanes/{index}", 404, json={"state": "paused"})
        assert (error["type"], error["extra_info"]["valid"]) == ("lane_unknown", "0-1")

    with_site(test)


def test_with_the_gate_off_the_one_lane_pauses_too() -> None:
    async def test(site: Site) -> None:
        await site.json("POST", "/lanes/0", json={"state": "paused"})
        assert (await site.json("GET", "/ready", 503))["lanes"] == lanes("paused")

    with_site(test, lanes=1, multi_gpu=False)


def test_when_a_gpu_failed_everything_says_so() -> None:
    async def test(site: Site) -> None:
        site.house.scheduler.fail(1, "CUDA error 700: an illegal memory access was encountered")
        answer = await site.json("GET", "/ready", 503)
        assert (answer["status"], answer["reason"]) == ("failed", "CUDA error 700: an illegal memory access was encountered")
        assert answer["lanes"] == lanes("failed", "failed")
        assert (await site.error("POST", "/prompt", 503, json={"prompt": graph()}))["type"] == "device_failed"
        assert (await site.error("POST", "/lanes/0", 409, json={"state": "running"}))["type"] == "lane_state_error"

    with_site(test)
