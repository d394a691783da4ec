"""Sizes and times in words."""

from __future__ import annotations

KIB = 1024
MIB = 1024**2
GIB = 1024**3


def gib(nbytes: float) -> str:
    """`12884901888` -> `12.0 GiB`; under 1 GiB in MiB."""
    return f"{nbytes / GIB:.1f} GiB" if nbytes >= GIB else f"{nbytes / MIB:.0f} MiB"
