"""Metrics of what lies below the lanes: weights in RAM, models and graphs on the devices, the GPUs themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from comfy.device.context import DeviceContext
from comfy.device.gpu_stats import GpuStats
from comfy.web.metric_families import GPU, Families


def weights(make: Families, ctx: DeviceContext) -> Iterator[Any]:
    """The one copy of the weights in RAM."""
    weights = ctx.weights.statistics()
    gauges: tuple[tuple[str, str, float], ...] = (
        ("comfy_weights_ram_bytes", "Weights in RAM, one copy for all lanes.", weights.used_bytes),
        ("comfy_weights_ram_capacity_bytes", "RAM that weights may take.", weights.capacity_bytes),
        ("comfy_weights_slabs", "Parts of model files in RAM.", len(weights.rows)),
    )
    for name, text, value in gauges:
        gauge = make.gauge(name, text)
        gauge.add_metric([], value)
        yield gauge
    counters: tuple[tuple[str, str, float], ...] = (
        ("comfy_weights_hits", "Times that weights were wanted and in RAM.", weights.hits),
        ("comfy_weights_evictions", "Parts of model files that gave way to others in RAM.", weights.evictions),
        ("comfy_weights_disk_reads", "Parts of model files read from disk into RAM.", weights.reads),
        ("comfy_weights_disk_read_bytes", "Bytes of these.", weights.read_bytes),
        ("comfy_weights_disk_read_seconds", "Time that these took.", weights.read_s),
    )
    for name, text, value in counters:
        counter = make.counter(name, text)
        counter.add_metric([], value)
        yield counter


def devices(make: Families, contexts: Sequence[DeviceContext]) -> Iterator[Any]:
    """Models on the lanes."""
    source = ["gpu", "source"]
    used = make.gauge("comfy_lane_resident_bytes", "Weights on the lane's device.", GPU)
    budget = make.gauge("comfy_lane_resident_budget_bytes", "What weights may take there.", GPU)
    hits = make.counter("comfy_lane_resident_hits", "Times that a model was wanted and on the device.", GPU)
    evictions = make.counter("comfy_lane_resident_evictions", "Models that gave way to others on the device.", GPU)
    loads = make.counter("comfy_lane_model_loads", "Models brought to the lane, by where the weights came from.", source)
    loaded = make.counter("comfy_lane_model_load_bytes", "Bytes of these.", source)
    seconds = make.counter("comfy_lane_model_load_seconds", "Time that these took, once the weights were in RAM.", source)
    for ctx in contexts:
        gpu, resident = str(ctx.index), ctx.resident.statistics()
        used.add_metric([gpu], resident.used_bytes)
        budget.add_metric([gpu], resident.budget_bytes)
        hits.add_metric([gpu], resident.hits)
        evictions.add_metric([gpu], resident.evictions)
        loads.add_metric([gpu, "ram"], resident.loads)
        loaded.add_metric([gpu, "ram"], resident.load_bytes)
        seconds.add_metric([gpu, "ram"], resident.load_s)
    yield from (used, budget, hits, evictions, loads, loaded, seconds)


def graphs(make: Families, contexts: Sequence[DeviceContext]) -> Iterator[Any]:
    """Forward passes, and graphs of them."""
    passes = make.counter("comfy_lane_denoiser_passes", "Forward passes of denoisers, however they were run.", GPU)
    captures = make.counter("comfy_lane_graph_captures", "Passes that were captured as CUDA graphs.", GPU)
    replays = make.counter("comfy_lane_graph_replays", "Passes that were replayed.", GPU)
    refusals = make.counter("comfy_lane_graph_refusals", "Passes that could not be captured and run eagerly.", GPU)
    held = make.gauge("comfy_lane_graphs", "CUDA graphs that the lane keeps.", GPU)
    for ctx in contexts:
        gpu, runner = str(ctx.index), ctx.runner.statistics()
        passes.add_metric([gpu], runner.calls)
        captures.add_metric([gpu], runner.graphs.captures)
        replays.add_metric([gpu], runner.graphs.replays)
        refusals.add_metric([gpu], runner.graphs.refusals)
        held.add_metric([gpu], runner.graphs.held)
    yield from (passes, captures, replays, refusals, held)


def vram(make: Families, contexts: Sequence[DeviceContext]) -> Iterator[Any]:
    """The process's GPU memory; nothing on a CPU."""
    allocated = make.gauge("comfy_lane_vram_allocated_bytes", "GPU memory that tensors of this process hold.", GPU)
    reserved = make.gauge("comfy_lane_vram_reserved_bytes", "GPU memory that torch holds for this process.", GPU)
    for ctx in contexts:
        if ctx.device.type == "cuda":
            allocated.add_metric([str(ctx.index)], torch.cuda.memory_allocated(ctx.device))
            reserved.add_metric([str(ctx.index)], torch.cuda.memory_reserved(ctx.device))
    yield from (family for family in (allocated, reserved) if family.samples)


def gpus(make: Families, contexts: Sequence[DeviceContext], gpus: GpuStats) -> Iterator[Any]:
    """What the driver says; nothing without one."""
    families = {
        "utilization": make.gauge("comfy_gpu_utilization_ratio", "Share of the time in which the GPU ran a kernel.", GPU),
        "memory_used_bytes": make.gauge("comfy_gpu_memory_used_bytes", "GPU memory in use, by all processes.", GPU),
        "memory_total_bytes": make.gauge("comfy_gpu_memory_total_bytes", "GPU memory that there is.", GPU),
        "temperature_c": make.gauge("comfy_gpu_temperature_celsius", "Temperature of the GPU.", GPU),
        "power_w": make.gauge("comfy_gpu_power_watts", "Power that the GPU draws.", GPU),
    }
    for ctx in contexts:
        reading = gpus.read(ctx.device)
        for name, family in families.items():
            value = getattr(reading, name, None)
            if value is not None:
                family.add_metric([str(ctx.index)], value)
    yield from (family for family in families.values() if family.samples)
