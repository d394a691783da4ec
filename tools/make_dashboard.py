"""Write docs/monitoring/dashboard.json: `make_dashboard.py > docs/monitoring/dashboard.json`. One row of PANELS is one panel."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

COLUMNS, WIDTH, HEIGHT = 3, 8, 7  #: of Grafana's 24 columns
SOURCE = {"type": "prometheus", "uid": "${source}"}
EVERY = "$__rate_interval"


@dataclass(frozen=True)
class Panel:
    """A graph: its title, unit in Grafana's words, and (expression, legend) pairs."""

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]


def rate(metric: str, by: str = "", more: str = "") -> str:
    """Per second, summed by labels when some are given."""
    asked = f'rate({metric}{{job="$job"{more}}}[{EVERY}])'
    return f"sum by ({by}) ({asked})" if by else asked


def now(metric: str, more: str = "") -> str:
    """The value now."""
    return f'{metric}{{job="$job"{more}}}'


def quantile(q: float, metric: str) -> str:
    """A quantile by lane."""
    return f"histogram_quantile({q}, {rate(metric + '_bucket', 'gpu, le')})"


def share(part: str, whole: str) -> str:
    """A ratio that is empty, not infinite, where nothing happened."""
    return f"({part}) / (({whole}) > 0)"


OUTCOMES = rate("comfy_lane_jobs_total", "gpu")
GPU = "GPU {{gpu}}"
SECTIONS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Lanes",
        (
            Panel(
                "Server",
                "short",
                ((now("comfy_ready"), "ready"), (now("comfy_failed"), "failed"), (now("comfy_build_info"), "{{version}}")),
            ),
            Panel("State", "short", ((now("comfy_lane_state") + " == 1", GPU + " {{state}}"),)),
            Panel("Queue length", "short", ((now("comfy_lane_queue_length"), GPU),)),
            Panel("Running", "short", ((now("comfy_lane_running"), GPU), (now("comfy_lane_takes_auto_jobs"), GPU + " takes auto jobs"))),
            Panel("Without progress", "s", ((now("comfy_lane_quiet_seconds"), GPU),)),
            Panel("Prompts by outcome", "reqps", ((rate("comfy_lane_jobs_total", "outcome"), "{{outcome}}"),)),
            Panel("Success rate", "percentunit", ((share(rate("comfy_lane_jobs_total", "gpu", ',outcome="succeeded"'), OUTCOMES), GPU),)),
            Panel(
                "Wait, median and 95 %",
                "s",
                ((quantile(0.5, "comfy_lane_wait_seconds"), GPU + " 50 %"), (quantile(0.95, "comfy_lane_wait_seconds"), GPU + " 95 %")),
            ),
            Panel(
                "Run time, median and 95 %",
                "s",
                ((quantile(0.5, "comfy_lane_run_seconds"), GPU + " 50 %"), (quantile(0.95, "comfy_lane_run_seconds"), GPU + " 95 %")),
            ),
            Panel(
                "Out of memory, retries, new executors",
                "short",
                (
                    (rate("comfy_lane_out_of_memory_total"), GPU + " out of memory"),
                    (rate("comfy_lane_retries_total"), GPU + " retries"),
                    (rate("comfy_lane_executor_rebuilds_total"), GPU + " new executors"),
                ),
            ),
            Panel("Time by node class", "percentunit", ((f"topk(10, {rate('comfy_node_seconds_sum')})", "{{node_class}}"),)),
            Panel(
                "Nodes started, and found in the cache",
                "ops",
                ((rate("comfy_node_seconds_count"), "{{node_class}}"), (rate("comfy_lane_cached_nodes_total"), GPU + " cached")),
            ),
        ),
    ),
    (
        "Models",
        (
            Panel(
                "Weights in RAM",
                "bytes",
                ((now("comfy_weights_ram_bytes"), "used"), (now("comfy_weights_ram_capacity_bytes"), "may be used")),
            ),
            Panel("Parts of files in RAM", "short", ((now("comfy_weights_slabs"), "slabs"),)),
            Panel(
                "RAM: hits, reads, evictions",
                "ops",
                (
                    (rate("comfy_weights_hits_total"), "hits"),
                    (rate("comfy_weights_disk_reads_total"), "reads"),
                    (rate("comfy_weights_evictions_total"), "evictions"),
                ),
            ),
            Panel(
                "From disk",
                "Bps",
                (
                    (rate("comfy_weights_disk_read_bytes_total"), "while idle too"),
                    (share(rate("comfy_weights_disk_read_bytes_total"), rate("comfy_weights_disk_read_seconds_total")), "while reading"),
                ),
            ),
            Panel("Models brought to lanes", "ops", ((rate("comfy_lane_model_loads_total"), GPU + " from {{source}}"),)),
            Panel(
                "Speed of bringing",
                "Bps",
                (
                    (
                        share(rate("comfy_lane_model_load_bytes_total"), rate("comfy_lane_model_load_seconds_total")),
                        GPU + " from {{source}}",
                    ),
                ),
            ),
            Panel(
                "Weights on the lanes",
                "bytes",
                ((now("comfy_lane_resident_bytes"), GPU), (now("comfy_lane_resident_budget_bytes"), GPU + " budget")),
            ),
            Panel(
                "Lanes: hits and evictions",
                "ops",
                (
                    (rate("comfy_lane_resident_hits_total"), GPU + " hits"),
                    (rate("comfy_lane_resident_evictions_total"), GPU + " evictions"),
                ),
            ),
            Panel(
                "Denoiser passes",
                "ops",
                ((rate("comfy_lane_denoiser_passes_total"), GPU), (rate("comfy_lane_graph_replays_total"), GPU + " replayed")),
            ),
            Panel(
                "Graphs",
                "short",
                (
                    (now("comfy_lane_graphs"), GPU + " held"),
                    (rate("comfy_lane_graph_captures_total"), GPU + " captures/s"),
                    (rate("comfy_lane_graph_refusals_total"), GPU + " refusals/s"),
                ),
            ),
        ),
    ),
    (
        "Machine",
        (
            Panel("GPU use", "percentunit", ((now("comfy_gpu_utilization_ratio"), GPU),)),
            Panel(
                "GPU memory", "bytes", ((now("comfy_gpu_memory_used_bytes"), GPU), (now("comfy_gpu_memory_total_bytes"), GPU + " there is"))
            ),
            Panel(
                "GPU memory of this process",
                "bytes",
                ((now("comfy_lane_vram_allocated_bytes"), GPU + " tensors"), (now("comfy_lane_vram_reserved_bytes"), GPU + " reserved")),
            ),
            Panel("GPU temperature", "celsius", ((now("comfy_gpu_temperature_celsius"), GPU),)),
            Panel("GPU power", "watt", ((now("comfy_gpu_power_watts"), GPU),)),
            Panel(
                "Process memory",
                "bytes",
                ((now("process_resident_memory_bytes"), "resident"), (now("process_virtual_memory_bytes"), "virtual")),
            ),
            Panel("Process CPU", "percentunit", ((rate("process_cpu_seconds_total"), "cores"),)),
            Panel("Open files", "short", ((now("process_open_fds"), "open"), (now("process_max_fds"), "limit"))),
        ),
    ),
)


def graph(panel: Panel, number: int, place: int, top: int) -> dict[str, Any]:
    """One panel in Grafana's JSON."""
    targets = [
        {"datasource": SOURCE, "expr": expression, "legendFormat": legend, "refId": chr(65 + index)}
        for index, (expression, legend) in enumerate(panel.lines)
    ]
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "datasource": SOURCE,
        "gridPos": {"x": place % COLUMNS * WIDTH, "y": top + place // COLUMNS * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": targets,
    }


def panels() -> list[dict[str, Any]]:
    """Every section: its heading, then its graphs, three beside each other."""
    made: list[dict[str, Any]] = []
    top = 0
    for title, section in SECTIONS:
        made.append(
            {
                "id": len(made) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": top, "w": 24, "h": 1},
            }
        )
        made += [graph(panel, len(made) + 1 + place, place, top + 1) for place, panel in enumerate(section)]
        top += 1 + -(-len(section) // COLUMNS) * HEIGHT
    return made


def dashboard() -> dict[str, Any]:
    """The whole dashboard, which asks for its data source and its job when it is opened."""
    source = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    job = {
        "name": "job",
        "label": "Job",
        "type": "query",
        "datasource": SOURCE,
        "query": "label_values(comfy_build_info, job)",
        "refresh": 1,
    }
    return {
        "uid": "comfy-lanes",
        "title": "ComfyUI lanes",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [source, job]},
        "panels": panels(),
    }


if __name__ == "__main__":
    json.dump(dashboard(), sys.stdout, indent=1)
    print()
