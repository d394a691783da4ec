"""`/metrics`: what the lanes, the weights and the GPUs count, for Prometheus.

Nothing is counted here: each scrape reads the statistics that the parts keep anyway. A lane's label is gpu="0". Label sets
are bounded: lanes, their states and outcomes, and classes of nodes that ran.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from aiohttp import web

from comfy.config import VERSION
from comfy.device.context import DeviceContext
from comfy.device.gpu_stats import GpuStats
from comfy.web import metric_devices
from comfy.web.lanes import is_ready
from comfy.web.metric_families import GPU, Families, prometheus
from comfy_execution.lane_state import LaneState
from comfy_execution.lane_stats import Histogram
from comfy_execution.scheduler import Scheduler
from comfy_execution.views import LaneView

if TYPE_CHECKING:
    from server import PromptServer


class Collector:
    """Reads every part at each scrape. Any thread may call `collect`."""

    def __init__(self, scheduler: Scheduler | None, contexts: Sequence[DeviceContext], gpus: GpuStats) -> None:
        self._scheduler = scheduler
        self._contexts = contexts
        self._gpus = gpus

    def describe(self) -> list[Any]:
        """Nothing: what there is depends on the machine, and asking costs a whole scrape."""
        return []

    def collect(self) -> Iterator[Any]:
        """Every family."""
        make = Families()
        yield from _process(make, self._scheduler)
        if self._scheduler is not None:
            views = self._scheduler.lanes()
            yield from _queues(make, views)
            yield from _jobs(make, views)
            yield from _nodes(make, views)
        if self._contexts:
            yield from metric_devices.weights(make, self._contexts[0])
            yield from metric_devices.devices(make, self._contexts)
            yield from metric_devices.graphs(make, self._contexts)
        yield from metric_devices.vram(make, self._contexts)
        yield from metric_devices.gpus(make, self._contexts, self._gpus)


def _process(make: Families, scheduler: Scheduler | None) -> Iterator[Any]:
    build = make.gauge("comfy_build_info", "Version of the contract that the server keeps, and of torch; always 1.", ["version", "torch"])
    build.add_metric([VERSION, torch.__version__], 1)
    ready = make.gauge("comfy_ready", "1 when at least one lane takes prompts.")
    ready.add_metric([], is_ready(scheduler))
    failed = make.gauge("comfy_failed", "1 when a GPU failed for good and the process is about to end.")
    failed.add_metric([], scheduler is not None and scheduler.failed is not None)
    yield from (build, ready, failed)


def _queues(make: Families, views: Sequence[LaneView]) -> Iterator[Any]:
    waiting = make.gauge("comfy_lane_queue_length", "Prompts that wait on the lane.", GPU)
    running = make.gauge("comfy_lane_running", "Prompts that the lane runs.", GPU)
    takes = make.gauge("comfy_lane_takes_auto_jobs", "1 when the router may choose the lane.", GPU)
    quiet = make.gauge("comfy_lane_quiet_seconds", "Time since the lane's running prompt last showed progress; 0 without one.", GPU)
    state = make.gauge("comfy_lane_state", "1 for the state that the lane is in, 0 for the others.", ["gpu", "state"])
    for view in views:
        gpu = str(view.lane.index)
        waiting.add_metric([gpu], view.pending_count)
        running.add_metric([gpu], view.running_count)
        takes.add_metric([gpu], view.takes)
        quiet.add_metric([gpu], view.lane.quiet_s)
        for each in LaneState:
            state.add_metric([gpu, each.value], view.lane.state == each.value)
    yield from (waiting, running, takes, quiet, state)


def _jobs(make: Families, views: Sequence[LaneView]) -> Iterator[Any]:
    waits = make.histogram("comfy_lane_wait_seconds", "Time from a prompt's acceptance to its start.")
    runs = make.histogram("comfy_lane_run_seconds", "Time from a prompt's start to its end.")
    outcomes = make.counter("comfy_lane_jobs", "Prompts that ended on the lane, by outcome.", ["gpu", "outcome"])
    ooms = make.counter("comfy_lane_out_of_memory", "Times that the lane's memory ran out.", GPU)
    retries = make.counter("comfy_lane_retries", "Prompts that were tried once more after that.", GPU)
    rebuilds = make.counter("comfy_lane_executor_rebuilds", "New executors after failures in a row.", GPU)
    cached = make.counter("comfy_lane_cached_nodes", "Nodes whose results were there from an earlier prompt.", GPU)
    for view in views:
        gpu, figures = str(view.lane.index), view.lane.figures
        totals = figures.totals
        waits.add_metric([gpu], buckets(figures.waits), figures.waits.sum_s)
        runs.add_metric([gpu], buckets(figures.runs), figures.runs.sum_s)
        for outcome in ("succeeded", "failed", "interrupted"):
            outcomes.add_metric([gpu, outcome], getattr(totals, outcome))
        ooms.add_metric([gpu], totals.ooms)
        retries.add_metric([gpu], totals.retries)
        rebuilds.add_metric([gpu], totals.rebuilds)
        cached.add_metric([gpu], figures.cached_nodes)
    yield from (waits, runs, outcomes, ooms, retries, rebuilds, cached)


def buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """(upper bound, how many times lay at or below it) pairs, `+Inf` last."""
    total, found = 0, []
    for bound, count in zip((*(str(float(bound)) for bound in Histogram.BOUNDS), "+Inf"), histogram.counts, strict=True):
        total += count
        found.append((bound, float(total)))
    return found


def _nodes(make: Families, views: Sequence[LaneView]) -> Iterator[Any]:
    calls: Counter[str] = Counter()
    seconds: dict[str, float] = {}
    for view in views:
        for name, time_of in view.lane.figures.nodes.items():
            calls[name] += time_of.calls
            seconds[name] = seconds.get(name, 0.0) + time_of.seconds
    nodes = make.summary("comfy_node_seconds", "Time that nodes of a class took, on all lanes.", ["node_class"])
    for name in sorted(calls):
        nodes.add_metric([name], calls[name], seconds[name])
    yield nodes


def make_registry(collector: Collector) -> Any:
    """A registry of its own, with the process's basics. Raises PackageMissing."""
    package = prometheus()
    registry = package.CollectorRegistry()
    registry.register(collector)
    package.ProcessCollector(registry=registry)
    package.PlatformCollector(registry=registry)
    return registry


def scrape(server: PromptServer, gpus: GpuStats) -> web.Response:
    """The whole answer. Raises PackageMissing."""
    package = prometheus()
    registry = make_registry(Collector(server.scheduler_or_none, server.contexts, gpus))
    return web.Response(body=package.generate_latest(registry), headers={"Content-Type": package.CONTENT_TYPE_LATEST})


def routes(server: PromptServer) -> web.RouteTableDef:
    """`/metrics`."""
    table = web.RouteTableDef()
    gpus = GpuStats()

    @table.get("/metrics")
    async def metrics(request: web.Request) -> web.Response:
        return await asyncio.to_thread(scrape, server, gpus)  # the driver may take its time

    return table
