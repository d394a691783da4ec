"""`/metrics`, the alert rules and the dashboard, checked by promtool and against each other."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from comfy.config import Config
from comfy.device.context import DeviceContext, make_contexts
from comfy.device.gpu_stats import GpuReading, GpuStats
from comfy.web.metrics import Collector
from comfy.weights.cache import WeightCache
from comfy_execution.events import Message
from comfy_execution.job import Job
from tests.unit.lanes.fakes import House
from tests.unit.web.helpers import Site, graph, with_site
from tools import make_dashboard

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "docs/monitoring"
PROCESS = {"process_resident_memory_bytes", "process_virtual_memory_bytes", "process_start_time_seconds", "process_cpu_seconds_total"}
PROCESS |= {"process_open_fds", "process_max_fds"}
ALERTS: list[dict[str, Any]] = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
NAME = re.compile(r"\b(?:comfy|process)_[a-z_]+\b")


class AllGpus(GpuStats):
    """Every lane has a GPU that tells everything."""

    def read(self, device: torch.device) -> GpuReading:
        return GpuReading(0.5, 1, 2, 60.0, 300.0, "PCIe 5.0 x16")


def promtool(*arguments: str, text: str | None = None) -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed")
    ran = subprocess.run([program, *arguments], input=text, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def contexts() -> list[DeviceContext]:
    return make_contexts(Config(cpu=True, multi_gpu=True), WeightCache(1 << 30))


def families(house: House, contexts: list[DeviceContext]) -> dict[str, Any]:
    return {family.name: family for family in Collector(house.scheduler, contexts, AllGpus()).collect()}


def value(found: dict[str, Any], family: str, sample: str, **labels: str) -> float:
    values = [one.value for one in found[family].samples if one.name == sample and one.labels == labels]
    assert len(values) == 1, found[family].samples
    return float(values[0])


def test_what_lanes_did_is_told_by_lane_and_outcome(contexts: list[DeviceContext]) -> None:
    with House(2) as house:
        for name, do, lane in (("a", "ok", 0), ("b", "fail", 0), ("c", "oom", 1), ("d", "ok", 1)):
            house.send(name, do, target=lane)
        house.wait_ended("a", "b", "c", "d")
        house.send("now", gated=True, target=0)
        house.wait_started("now")
        house.send("later", target=0)
        house.now = 601.0
        house.scheduler.pause(1, True)
        found = families(house, contexts)
        house.open("now")
        house.wait_ended("now", "later")
    jobs = "comfy_lane_jobs"
    assert value(found, jobs, "comfy_lane_jobs_total", gpu="0", outcome="succeeded") == 1
    assert value(found, jobs, "comfy_lane_jobs_total", gpu="0", outcome="failed") == 1
    assert value(found, jobs, "comfy_lane_jobs_total", gpu="1", outcome="succeeded") == 2
    assert value(found, "comfy_lane_out_of_memory", "comfy_lane_out_of_memory_total", gpu="1") == 1
    assert value(found, "comfy_lane_retries", "comfy_lane_retries_total", gpu="1") == 1
    assert value(found, "comfy_lane_queue_length", "comfy_lane_queue_length", gpu="0") == 1
    assert value(found, "comfy_lane_running", "comfy_lane_running", gpu="0") == 1
    assert value(found, "comfy_lane_state", "comfy_lane_state", gpu="0", state="stalled") == 1
    assert value(found, "comfy_lane_state", "comfy_lane_state", gpu="1", state="paused") == 1
    assert value(found, "comfy_lane_quiet_seconds", "comfy_lane_quiet_seconds", gpu="0") == 601
    assert value(found, "comfy_lane_run_seconds", "comfy_lane_run_seconds_bucket", gpu="1", le="+Inf") == 2
    assert value(found, "comfy_lane_run_seconds", "comfy_lane_run_seconds_count", gpu="0") == 2
    states = [one for one in found["comfy_lane_state"].samples if one.value]
    assert [one.labels["gpu"] for one in states] == ["0", "1"]  # each lane is in one state


def test_time_by_node_class_is_summed_over_lanes(contexts: list[DeviceContext]) -> None:
    with House(2) as house:
        for lane, executor in enumerate(house.executors):

            def run(job: Job, control: Any, executor: Any = executor, kept: Any = executor.execute) -> Any:
                for node in ("1", "2"):
                    executor.publish(Message("executing", {"node": node, "display_node": node, "prompt_id": job.prompt_id}))
                return kept(job, control)

            executor.execute = run  # type: ignore[method-assign]
            house.send(f"p{lane}", target=lane, nodes={"1": {"class_type": "Load"}, "2": {"class_type": "Sample"}})
        house.wait_ended("p0", "p1")
        found = families(house, contexts)
    assert value(found, "comfy_node_seconds", "comfy_node_seconds_count", node_class="Load") == 2
    assert value(found, "comfy_node_seconds", "comfy_node_seconds_count", node_class="Sample") == 2
    assert value(found, "comfy_node_seconds", "comfy_node_seconds_sum", node_class="Load") >= 0


def scraped(contexts: list[DeviceContext]) -> str:
    """What a server answers, over HTTP."""
    told: list[str] = []

    async def test(site: Site) -> None:
        site.server.contexts = contexts
        accepted = await site.json("POST", "/prompt", json={"prompt": graph()})
        await site.wait(site.house.wait_ended, accepted["prompt_id"])
        async with site.http.get("/metrics") as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"].startswith("text/plain; version=")
            told.append(await answer.text())

    with_site(test)
    return told[0]


def test_promtool_finds_nothing_to_say_of_the_answer(contexts: list[DeviceContext]) -> None:
    text = scraped(contexts)
    assert promtool("check", "metrics", text=text).strip() == ""
    names = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    assert names >= PROCESS
    assert "comfy_gpu_power_watts" not in names  # no NVIDIA here, or none that these CPU lanes use


def test_a_scrape_leaves_out_what_is_not_there_yet() -> None:
    async def test(site: Site) -> None:
        site.server._scheduler = None
        async with site.http.get("/metrics") as answer:
            text = await answer.text()
        site.server._scheduler = site.house.scheduler
        assert (answer.status, "comfy_ready 0.0" in text, "comfy_lane_state" in text) == (200, True, False)

    with_site(test)


def test_without_the_package_the_answer_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(site: Site) -> None:
        monkeypatch.setitem(sys.modules, "prometheus_client", None)
        error = await site.error("GET", "/metrics", 500)
        assert (error["type"], error["extra_info"]) == ("package_missing", {"package": "prometheus-client"})

    with_site(test)


def test_labels_are_bounded(contexts: list[DeviceContext]) -> None:
    with House(2) as house:
        house.send("an-id", "ok")
        house.wait_ended("an-id")
        found = families(house, contexts)
    allowed = {"gpu", "state", "outcome", "source", "node_class", "le", "version", "torch"}
    assert {label for family in found.values() for sample in family.samples for label in sample.labels} <= allowed
    assert "an-id" not in str([sample for family in found.values() for sample in family.samples])


def all_names(contexts: list[DeviceContext]) -> set[str]:
    """Every sample name that `/metrics` can have on a machine with GPUs."""
    with House(1) as house:
        names = {sample.name for family in families(house, contexts).values() for sample in family.samples}
    names |= {f"comfy_node_seconds_{end}" for end in ("count", "sum")}
    names |= {"comfy_lane_vram_allocated_bytes", "comfy_lane_vram_reserved_bytes"}  # a GPU's
    return names | PROCESS


def test_rules_and_configuration_load() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", str(MONITORING / "alerts.yml"))
    assert "SUCCESS" in promtool("check", "config", str(MONITORING / "prometheus.yml"))


def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    shutil.copy(MONITORING / "alerts.yml", tmp_path)
    cases = tmp_path / "cases.yml"
    shutil.copy(ROOT / "tests/operations/alert_cases.yml", cases)
    assert "SUCCESS" in promtool("test", "rules", str(cases))


def test_alerts_use_metrics_that_exist(contexts: list[DeviceContext]) -> None:
    assert {name for rule in ALERTS for name in NAME.findall(rule["expr"])} - all_names(contexts) == set()


def test_every_alert_says_what_to_do() -> None:
    readme = (MONITORING / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(Comfy\w+)`", readme)) == {rule["alert"] for rule in ALERTS}


def test_the_dashboard_is_what_its_tool_makes() -> None:
    assert json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8")) == make_dashboard.dashboard()


def expressions() -> Iterator[str]:
    for panel in make_dashboard.panels():
        yield from (target["expr"] for target in panel.get("targets", ()))


def test_the_dashboard_shows_every_metric_and_no_other(contexts: list[DeviceContext]) -> None:
    shown = {name for expression in expressions() for name in NAME.findall(expression)}
    histogram = {f"{name}_{end}" for name in ("comfy_lane_wait_seconds", "comfy_lane_run_seconds") for end in ("count", "sum")}
    not_graphed = histogram | {"process_start_time_seconds"}  # the buckets are; the start is the alerts'
    assert shown == all_names(contexts) - not_graphed


def test_prometheus_understands_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{index}", "expr": expression.replace("$__rate_interval", "5m").replace("$job", "comfyui")}
        for index, expression in enumerate(expressions())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(file))


def test_panels_lie_side_by_side() -> None:
    seen: set[tuple[int, int]] = set()
    for panel in make_dashboard.panels():
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & seen
        assert place["x"] + place["w"] <= 24
        seen |= cells
    numbers = [panel["id"] for panel in make_dashboard.panels()]
    assert len(set(numbers)) == len(numbers)


def test_the_readme_names_every_metric(contexts: list[DeviceContext]) -> None:
    readme = (MONITORING / "README.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`(comfy_[a-z_]+)`", readme))
    short = {re.sub(r"_(bucket|count|sum)$", "", name) for name in all_names(contexts) if name.startswith("comfy_")}
    assert told == short


def test_a_slow_driver_does_not_hold_up_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(site: Site) -> None:
        entered, release = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def slow(*arguments: Any) -> Any:
            loop.call_soon_threadsafe(entered.set)
            assert release.wait(20)
            return web.Response(text="")

        monkeypatch.setattr("comfy.web.metrics.scrape", slow)
        scrape = asyncio.create_task(site.http.get("/metrics").__aenter__())
        await entered.wait()
        assert (await site.json("GET", "/health"))["status"] == "ok"
        release.set()
        (await scrape).release()

    with_site(test)
