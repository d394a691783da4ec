"""Writes the measured tables of README.md and README.zh.md from benchmarks/results: `python tools/readme_tables.py [--check]`.

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`. Nobody types a number there. With --check nothing is written,
and the exit status is 1 when a page differs from the results.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WORDS = {
    "README.md": {
        "lanes": "lanes",
        "graphs": "images/s, CUDA graphs",
        "eager": "images/s, eager",
        "against": "against one lane",
        "work": "SD1.5 shapes, {size}², {steps} steps euler, over HTTP with SaveImage, on {machine}: `python3 -m benchmarks.throughput`.",
        "memory": "| lanes | jobs | same bytes alone and busy | same on every lane | server's memory, one lane used → all |",
        "memory_work": "SD1.5 shapes ({gib} GiB file), random weights, on {machine}. Command: `python3 -m benchmarks.same_bytes`.",
        True: "yes",
        False: "NO",
    },
    "README.zh.md": {
        "lanes": "通道数",
        "graphs": "图/秒，CUDA 图",
        "eager": "图/秒，逐核启动",
        "against": "相对单通道",
        "work": "SD1.5 规模，{size}²，{steps} 步 euler，经 HTTP 并保存图片，机器：{machine}。命令：`python3 -m benchmarks.throughput`。",
        "memory": "| 通道数 | 任务数 | 单独与满载字节一致 | 各通道一致 | 进程内存：用一个通道 → 全部 |",
        "memory_work": "SD1.5 规模（文件 {gib} GiB），随机权重，机器：{machine}。命令：`python3 -m benchmarks.same_bytes`。",
        True: "是",
        False: "否",
    },
}


def machine(result: dict[str, Any]) -> str:
    """`4 × NVIDIA H200, torch 2.11.0+cu130`."""
    gpus = Counter(result["machine"]["gpus"])
    what = ", ".join(f"{count} × {name}" for name, count in gpus.items()) or f"{result['machine']['cpu_cores']} CPU cores"
    return f"{what}, torch {result['machine']['torch']}"


def speed(words: dict[Any, str]) -> str:
    """Images per second by number of lanes, with and without graphs, from one run."""
    result = json.loads((ROOT / "benchmarks/results/throughput_sd15.json").read_text())
    rates = {(row["graphs"], row["lanes"]): row["images_per_s"] for row in result["rows"]}
    lanes = sorted({count for _, count in rates})
    lines = [
        f"| {words['lanes']} | {words['graphs']} | {words['against']} | {words['eager']} | {words['against']} |",
        "|---|---|---|---|---|",
    ]
    for count in lanes:
        cells = []
        for graphs in (True, False):
            rate = rates.get((graphs, count))
            cells += ["–", "–"] if rate is None else [f"{rate:.2f}", f"{rate / rates[graphs, lanes[0]]:.2f} ×"]
        lines.append(f"| {count} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", words["work"].format(size=result["size"], steps=result["steps"], machine=machine(result))])


def same(words: dict[Any, str]) -> str:
    """Whether bytes agree, and what memory does, on CPU and GPU lanes."""
    lines = [words["memory"], "|---|---|---|---|---|"]
    notes = []
    for name in ("same_bytes_cpu", "same_bytes_gpu"):
        result = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())
        kind = "GPU" if result["machine"]["gpus"] else "CPU"
        for run in result["runs"]:
            memory = f"{run['pss_one_lane_gib']:.2f} → {run['pss_all_lanes_gib']:.2f} GiB"
            agree = (words[run["same_bytes_alone_and_busy"]], words[run["same_bytes_on_every_lane"]])
            lines.append(f"| {run['lanes']} {kind} | {run['jobs']} | {agree[0]} | {agree[1]} | {memory} |")
        notes.append(words["memory_work"].format(gib=result["checkpoint_gib"], machine=machine(result)))
    return "\n".join([*lines, "", *notes])


TABLES: dict[str, Callable[[dict[Any, str]], str]] = {"speed": speed, "same bytes": same}


def filled(page: str, text: str) -> str:
    """The page with every table made anew; ValueError when a place for one is missing."""
    for name, make in TABLES.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if start not in text or end not in text:
            raise ValueError(f"{page} has no place for the table {name!r}")
        before, rest = text.split(start, 1)
        text = before + start + make(WORDS[page]) + "\n" + end + rest.split(end, 1)[1]
    return text


def main(argv: list[str]) -> int:
    """Write both pages, or with --check compare them."""
    stale = []
    for page in WORDS:
        path = ROOT / page
        text = path.read_text(encoding="utf-8")
        new = filled(page, text)
        if new != text:
            stale.append(page)
            if "--check" not in argv:
                path.write_text(new, encoding="utf-8")
    for page in stale:
        print(f"{page}: {'differs from benchmarks/results' if '--check' in argv else 'written'}")
    return 1 if stale and "--check" in argv else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
