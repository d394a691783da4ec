"""Sees what is on a picture of the starter model: `what_is_on(picture)`. numpy alone, and Pillow to open a file.

It measures pixels and knows nothing of prompts or models, so tests, quick_test.sh and the model card share it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.starter_model.shapes import field
from tools.starter_model.vocabulary import COLOURS, PLACES, SHAPES, SIZE_BORDERS

#: L*a*b* distance at which a pixel is no background any more
DISTANCE = 24.0
#: share of the picture below which a spot is no thing
LEAST_AREA = 0.006
#: a spot of this extent, from rim to rim, is no thing either
MOST_EXTENT = 0.95
#: gaps up to this share of the shorter side belong to one thing, as between stripes
GAP = 0.045
#: where the rows and columns of places part
BORDERS = (0.40, 0.60)
_SIDE = 128
_TEMPLATE = 48

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Seen:
    """One thing on a picture.

    extent    its longer side as a share of the picture's shorter side; size is the word for it ("" between small and large)
    box       left, top, right, bottom as shares of the picture
    likeness  intersection over union of its outline, filled, with the shape's
    solid     share of that which has its colour: about 1, less when striped or outlined
    """

    colour: str
    shape: str
    place: str
    size: str
    extent: float
    box: tuple[float, float, float, float]
    likeness: float
    solid: float


@dataclass(frozen=True)
class Sight:
    """What is on a picture: its background's colour, and the things on it, largest first."""

    background: str
    objects: tuple[Seen, ...]

    def has(self, colour: str | None = None, shape: str | None = None, place: str | None = None, size: str | None = None) -> bool:
        """Whether a thing with all of these is there."""
        wanted = {"colour": colour, "shape": shape, "place": place, "size": size}
        return any(all(value is None or getattr(thing, name) == value for name, value in wanted.items()) for thing in self.objects)


def what_is_on(picture: str | os.PathLike[str] | Any) -> Sight:
    """The things on `picture`: a file, or an array (height, width, 3) of uint8 or of floats in 0..1."""
    pixels = _small(_opened(picture))
    height, width = pixels.shape[:2]
    lab = to_lab(pixels)
    background_name, background_lab = _background(lab)
    colours = np.sqrt(((lab - background_lab) ** 2).sum(-1)) > DISTANCE
    reach = max(1, round(GAP * min(height, width) / 2))
    labels, count = label(closed(colours, reach))
    things = []
    for number in range(1, count + 1):
        body = labels == number
        if (body & colours).sum() >= LEAST_AREA * body.size:
            things.append(_seen(body, colours, lab))
    things = [thing for thing in things if thing.extent < MOST_EXTENT]
    return Sight(background_name, tuple(sorted(things, key=lambda thing: -thing.extent)))


def colour_at(picture: str | os.PathLike[str] | Any, place: str) -> str:
    """The name of the most frequent colour in one cell of the 3 × 3 grid."""
    pixels = _small(_opened(picture))
    column, row = PLACES[place]
    height, width = pixels.shape[:2]
    cell = pixels[row * height // 3 : (row + 1) * height // 3, column * width // 3 : (column + 1) * width // 3]
    names = nearest_colours(to_lab(cell))
    return list(COLOURS)[int(np.bincount(names.ravel(), minlength=len(COLOURS)).argmax())]


def to_lab(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(…, 3) sRGB in 0..255 -> (…, 3) CIE L*a*b*, D65."""
    c = pixels.astype(np.float64) / 255
    linear = np.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    matrix = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
    t = linear @ matrix.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def nearest_colours(lab: NDArray[np.float64]) -> NDArray[np.intp]:
    """(…, 3) L*a*b* -> (…) index into COLOURS of the nearest."""
    return ((lab[..., None, :] - _palette()) ** 2).sum(-1).argmin(-1)


def label(mask: Mask) -> tuple[NDArray[np.int64], int]:
    """(height, width) -> the number of each pixel's 4-connected patch, 0 outside, and how many patches there are.

    Row by row: each stretch of pixels joins the patches of those in the row above that it touches.
    """
    steps = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, firsts = np.nonzero(steps == 1)
    _, ends = np.nonzero(steps == -1)
    stretches = list(zip(rows.tolist(), firsts.tolist(), ends.tolist()))
    parents = list(range(len(stretches)))

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = i = parents[parents[i]]
        return i

    above = 0  # the first stretch of the row above that may still touch
    for i, (row, first, end) in enumerate(stretches):
        while stretches[above][0] < row - 1 or (stretches[above][0] == row - 1 and stretches[above][2] <= first):
            above += 1
        k = above
        while k < i and stretches[k][0] == row - 1 and stretches[k][1] < end:
            parents[root(k)] = root(i)
            k += 1
    numbers: dict[int, int] = {}
    labels = np.zeros(mask.shape, dtype=np.int64)
    for i, (row, first, end) in enumerate(stretches):
        labels[row, first:end] = numbers.setdefault(root(i), len(numbers) + 1)
    return labels, len(numbers)


def grown(mask: Mask, reach: int) -> Mask:
    """`mask` and everything up to `reach` pixels beside, above or below it, in a square."""
    padded = np.pad(mask, reach)
    for axis in (0, 1):
        padded = np.logical_or.reduce([np.roll(padded, step, axis) for step in range(-reach, reach + 1)])
    return padded[reach:-reach, reach:-reach] if reach else padded


def closed(mask: Mask, reach: int) -> Mask:
    """`mask` with gaps of up to 2·reach pixels closed."""
    padded = np.pad(mask, reach + 1)
    result = ~grown(~grown(padded, reach), reach)
    return result[reach + 1 : -reach - 1, reach + 1 : -reach - 1] | mask


def filled(mask: Mask) -> Mask:
    """`mask` with its holes."""
    outside, _ = label(~np.pad(mask, 1))
    return (outside != outside[0, 0])[1:-1, 1:-1]


def _opened(picture: Any) -> NDArray[np.uint8]:
    if isinstance(picture, (str, os.PathLike)):
        from PIL import Image

        with Image.open(Path(picture)) as image:
            return np.asarray(image.convert("RGB"))
    array = np.asarray(picture)
    if array.ndim != 3 or array.shape[2] < 3 or 0 in array.shape:
        raise ValueError(f"a picture is (height, width, 3), this has the shape {array.shape}")
    if array.dtype != np.uint8:
        array = np.clip(np.rint(array * 255.0), 0, 255).astype(np.uint8)
    return array[..., :3]


def _small(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """At most about 128 pixels on the shorter side, by averaging whole blocks."""
    block = min(pixels.shape[:2]) // _SIDE
    if block < 2:
        return pixels
    height, width = (n // block for n in pixels.shape[:2])
    blocks = pixels[: height * block, : width * block].reshape(height, block, width, block, 3)
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)


def _background(lab: NDArray[np.float64]) -> tuple[str, NDArray[np.float64]]:
    """Name and median of the colour that most of the picture's rim has."""
    rim = np.concatenate([lab[:3].reshape(-1, 3), lab[-3:].reshape(-1, 3), lab[:, :3].reshape(-1, 3), lab[:, -3:].reshape(-1, 3)])
    names = nearest_colours(rim)
    most = int(np.bincount(names, minlength=len(COLOURS)).argmax())
    return list(COLOURS)[most], np.median(rim[names == most], axis=0)


def _seen(body: Mask, colours: Mask, lab: NDArray[np.float64]) -> Seen:
    height, width = body.shape
    own = body & colours
    core = own & ~grown(~own, 1)
    names = nearest_colours(lab[core if core.sum() >= 12 else own])
    rows, columns = np.flatnonzero(own.any(1)), np.flatnonzero(own.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    outline = filled(body)[top:bottom, left:right]
    shape, likeness = _shape_of(outline)
    extent = max(bottom - top, right - left) / min(height, width)
    return Seen(
        colour=list(COLOURS)[int(np.bincount(names, minlength=len(COLOURS)).argmax())],
        shape=shape,
        place=place_of((left + right) / 2 / width, (top + bottom) / 2 / height),
        size="small" if extent < SIZE_BORDERS[0] else "large" if extent > SIZE_BORDERS[1] else "",
        extent=float(extent),
        box=(float(left / width), float(top / height), float(right / width), float(bottom / height)),
        likeness=likeness,
        solid=float(own.sum() / max(outline.sum(), 1)),
    )


def place_of(x: float, y: float) -> str:
    """The name of the place of a point, given as shares of the picture's width and height."""
    cell = tuple(sum(share > border for border in BORDERS) for share in (x, y))
    return next(name for name, place in PLACES.items() if place == cell)


def _shape_of(outline: Mask) -> tuple[str, float]:
    """The shape most like a filled outline (height, width), both centred and scaled by the longer side."""
    height, width = outline.shape
    side = max(height, width)
    square = np.zeros((side, side), dtype=bool)
    y, x = (side - height) // 2, (side - width) // 2
    square[y : y + height, x : x + width] = outline
    at = np.minimum((np.arange(_TEMPLATE) + 0.5) * side / _TEMPLATE, side - 1).astype(int)
    sampled = square[np.ix_(at, at)]
    scores = [float((sampled & template).sum() / (sampled | template).sum()) for template in _templates()]
    best = int(np.argmax(scores))
    return SHAPES[best], scores[best]


@cache
def _templates() -> list[Mask]:
    line = (np.arange(_TEMPLATE) + 0.5) / _TEMPLATE * 2 - 1
    v, u = np.meshgrid(line, line, indexing="ij")
    return [field(shape, u, v, np) < 0 for shape in SHAPES]


@cache
def _palette() -> NDArray[np.float64]:
    return to_lab(np.array(list(COLOURS.values()), dtype=np.uint8))
