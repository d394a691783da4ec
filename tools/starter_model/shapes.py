"""The six shapes as fields, for numpy and torch alike: both have the functions used here under the same names."""

from __future__ import annotations

import math
from typing import Any

from tools.starter_model.vocabulary import SHAPES

_STAR_INNER = 0.46


def field(shape: str, u: Any, v: Any, xp: Any) -> Any:
    """Below 0 inside the shape, above 0 outside, about the distance to its outline.

    u, v  coordinates to the right and down, in units of half the shape's extent: its longer side spans -1..1
    xp    the module `numpy` or `torch`, whose arrays u and v are
    """
    if shape == "circle":
        return xp.sqrt(u * u + v * v) - 1
    if shape == "square":
        return xp.maximum(xp.abs(u), xp.abs(v)) - 1
    if shape == "triangle":
        return xp.maximum((2 * xp.abs(u) - 1 - v) / math.sqrt(5), v - 1)
    if shape == "diamond":
        return (1.25 * xp.abs(u) + xp.abs(v) - 1) / math.sqrt(1 + 1.25**2)
    if shape == "cross":
        a, b = xp.abs(u), xp.abs(v)
        return xp.minimum(xp.maximum(a - 1, b - 0.34), xp.maximum(b - 1, a - 0.34))
    if shape == "star":
        return _star(u, v, xp)
    raise ValueError(f"no such shape: {shape}")


def _star(u: Any, v: Any, xp: Any) -> Any:
    """Five points, one of them up: the plane folded into one half point, then the line from its tip to the notch."""
    u, v = 0.951 * u, 0.951 * v - 0.0955  # in units of its radius it spans ±0.951 across and -1..0.809 down
    sector = 2 * math.pi / 5
    angle = xp.arctan2(u, -v)
    folded = xp.abs(xp.remainder(angle + sector / 2, sector) - sector / 2)
    radius = xp.sqrt(u * u + v * v)
    x, y = radius * xp.cos(folded), radius * xp.sin(folded)
    notch_x, notch_y = _STAR_INNER * math.cos(sector / 2), _STAR_INNER * math.sin(sector / 2)
    length = math.hypot(notch_x - 1, notch_y)
    return ((x - 1) * notch_y - y * (notch_x - 1)) / (0.951 * length)


__all__ = ["SHAPES", "field"]
