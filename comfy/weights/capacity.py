"""How much RAM the weights may use when nobody says."""

from __future__ import annotations

from pathlib import Path

import psutil

#: of the machine's RAM or the container's limit, whichever is less; the rest is for activations, images and the system
DEFAULT_SHARE = 0.7


def default_capacity_bytes(root: Path = Path("/")) -> int:
    """70 % of the RAM that this process may use. `root` is where /proc and /sys are looked for."""
    limits = [psutil.virtual_memory().total, *_cgroup_limits(root)]
    return int(min(limits) * DEFAULT_SHARE)


def _cgroup_limits(root: Path) -> list[int]:
    """Every memory limit on the way from this process's cgroup to the root, version 2 and version 1."""
    limits = []
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        inner = Path(path.strip("/"))
        for folder in (inner, *inner.parents):  # in a container the path may be the host's: what is not there limits nothing
            limits += [int(text) for text in _lines(base / folder / name) if text.isdigit() and int(text) > 0]
    return limits


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text().splitlines() if line]
    except OSError:
        return []
