"""Draws scenes, many at once, with torch on any device.

Legend: n scenes, t things of a scene (always 2), h, w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F

from tools.starter_model.scenes import Scene
from tools.starter_model.shapes import field
from tools.starter_model.vocabulary import COLOURS, LORA_STYLE, SHAPES, STYLES, TEXTURES

#: style, background (3), then for each of two things: shape (-1: none), colour (3), x, y, extent, texture, phase of its stripes
ROW = 4 + 2 * 9
_STYLES = (*STYLES, LORA_STYLE)
_SHADE = 5.0
#: widths in shares of the shorter side
_STRIPE, _OUTLINE = 0.075, 0.035
_PIXEL = 8


def row_of(scene: Scene) -> list[float]:
    """The numbers that `draw` needs of a scene, ROW of them."""
    random = Random(scene.seed)
    row = [float(_STYLES.index(scene.style)), *_shade(random, scene.background)]
    for thing in scene.things:
        row += [float(SHAPES.index(thing.shape)), *_shade(random, thing.colour), thing.x, thing.y, thing.extent]
        row += [float(TEXTURES.index(thing.texture)), random.random()]
    return row + [-1.0] * (ROW - len(row))


def rows_of(scenes: Sequence[Scene]) -> Tensor:
    """(n, ROW) float32"""
    return torch.tensor([row_of(scene) for scene in scenes], dtype=torch.float32)


def draw(rows: Tensor, height: int, width: int) -> Tensor:
    """rows (n, ROW) -> pictures (n, 3, h, w) float32 in 0..1, edges antialiased, on the rows' device."""
    canvas = rows[:, 1:4, None, None].expand(-1, -1, height, width)
    night = rows[:, 0] == _STYLES.index(LORA_STYLE)
    canvas = torch.where(night[:, None, None, None], canvas * 0.06, canvas)
    y = (torch.arange(height, device=rows.device) + 0.5)[None, :, None]
    x = (torch.arange(width, device=rows.device) + 0.5)[None, None, :]
    for start in (4, 13):
        canvas = _with_thing(canvas, rows[:, start : start + 9], x, y, night)
    return _styled(canvas, rows[:, 0])


def _with_thing(canvas: Tensor, thing: Tensor, x: Tensor, y: Tensor, night: Tensor) -> Tensor:
    """canvas (n, 3, h, w) with one thing a scene, thing (n, 9), over it. x (1, 1, w), y (1, h, 1) in pixels."""
    height, width = canvas.shape[2:]
    side = min(height, width)
    kind = thing[:, 0, None, None]
    distance = _distance(thing, x, y, height, width)
    cover = (0.5 - distance).clamp(0, 1)
    rim = cover * (0.5 + distance + _OUTLINE * side).clamp(0, 1)
    wave = torch.remainder((x + y) / (_STRIPE * side) + thing[:, 8, None, None], 1.0)
    stripes = ((0.3 - (wave - 0.5).abs()) * _STRIPE * side + 0.5).clamp(0, 1)
    texture = thing[:, 7, None, None]
    cover = torch.where(texture == 1, cover * stripes, cover)
    cover = torch.where((texture == 2) | night[:, None, None], rim, cover)
    glow = 0.45 * torch.exp(-distance.abs() / (0.05 * side)) * (kind >= 0)
    cover = torch.where(night[:, None, None], torch.maximum(cover, glow), cover)[:, None]
    return canvas + cover * (thing[:, 1:4, None, None] - canvas)


def _styled(canvas: Tensor, style: Tensor) -> Tensor:
    """The whole picture in large pixels, or out of focus, where the style says so."""
    block = _PIXEL
    small = F.avg_pool2d(canvas, block)
    pixelled = small.repeat_interleave(block, 2).repeat_interleave(block, 3)
    sigma = 0.028 * min(canvas.shape[2:])
    reach = int(2.5 * sigma)
    line = torch.exp(-(torch.arange(-reach, reach + 1, device=canvas.device) ** 2) / (2 * sigma**2))
    line = (line / line.sum()).expand(3, 1, -1)
    blurred = F.conv2d(F.pad(canvas, (reach, reach, 0, 0), mode="replicate"), line[:, :, None, :], groups=3)
    blurred = F.conv2d(F.pad(blurred, (0, 0, reach, reach), mode="replicate"), line[:, :, :, None], groups=3)
    style = style[:, None, None, None]
    return torch.where(style == 1, pixelled, torch.where(style == 2, blurred, canvas))


def _shade(random: Random, colour: str) -> list[float]:
    """The colour in 0..1, a little off by chance."""
    return [min(max(c + random.uniform(-_SHADE, _SHADE), 0.0), 255.0) / 255 for c in COLOURS[colour]]


def draw_edges(rows: Tensor, height: int, width: int, line: Tensor) -> Tensor:
    """rows (n, ROW), line (n,) widths in pixels -> outlines, white on black (n, 3, h, w), as an edge detector gives them."""
    y = (torch.arange(height, device=rows.device) + 0.5)[None, :, None]
    x = (torch.arange(width, device=rows.device) + 0.5)[None, None, :]
    nearest = torch.full((rows.shape[0], height, width), 1e3, device=rows.device)
    for start in (4, 13):
        nearest = torch.minimum(nearest, _distance(rows[:, start : start + 9], x, y, height, width).abs())
    return (0.5 + line[:, None, None] / 2 - nearest).clamp(0, 1)[:, None].expand(-1, 3, -1, -1)


def _distance(thing: Tensor, x: Tensor, y: Tensor, height: int, width: int) -> Tensor:
    """(n, h, w): about how many pixels each pixel lies outside (above 0) or inside (below 0) of the thing; far from none."""
    half = (thing[:, 6] * min(height, width) / 2).clamp(min=1.0)[:, None, None]
    u = (x - thing[:, 4, None, None] * width) / half
    v = (y - thing[:, 5, None, None] * height) / half
    distance = torch.full_like(u + v, 1e3)
    for index, shape in enumerate(SHAPES):
        distance = torch.where(thing[:, 0, None, None] == index, field(shape, u, v, torch), distance)
    return distance * half
