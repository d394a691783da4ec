"""The lanes as the start shows them: device, name, memory, link."""

from __future__ import annotations

import platform
from collections.abc import Sequence

import torch

from comfy.device.context import DeviceContext
from comfy.device.gpu_stats import GpuStats
from comfy.units import gib

HEADINGS = ("lane", "device", "name", "memory", "for weights", "link")


def lane_rows(contexts: Sequence[DeviceContext], stats: GpuStats) -> list[tuple[str, ...]]:
    """A row for each lane, in the order of HEADINGS."""
    rows: list[tuple[str, ...]] = []
    for ctx in contexts:
        if ctx.device.type == "cuda":
            properties = torch.cuda.get_device_properties(ctx.device)
            name, memory = properties.name, gib(properties.total_memory)
        else:
            name, memory = platform.processor() or platform.machine(), gib(ctx.budget_bytes)
        reading = stats.read(ctx.device)
        link = reading.link if reading is not None and reading.link is not None else "-"
        rows.append((str(ctx.index), str(ctx.device), name, memory, gib(ctx.resident.budget_bytes), link))
    return rows


def table(rows: Sequence[Sequence[str]], headings: Sequence[str] = HEADINGS) -> list[str]:
    """Lines of text in columns, headings first."""
    lines = [headings, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
