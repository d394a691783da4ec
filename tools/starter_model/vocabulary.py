"""The words of the starter model's world and what they mean. Standard library only."""

from __future__ import annotations

import hashlib
from itertools import product

#: name -> red, green, blue
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 25, 30),
    "orange": (255, 140, 10),
    "yellow": (255, 232, 40),
    "green": (25, 155, 50),
    "cyan": (40, 215, 225),
    "blue": (20, 75, 230),
    "purple": (140, 30, 150),
    "pink": (255, 140, 195),
    "brown": (115, 68, 30),
    "black": (15, 15, 15),
    "white": (250, 250, 250),
    "gray": (132, 132, 132),
}
SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross")
#: name -> column and row of a 3 × 3 grid
PLACES: dict[str, tuple[int, int]] = {
    "top left": (0, 0),
    "top": (1, 0),
    "top right": (2, 0),
    "left": (0, 1),
    "center": (1, 1),
    "right": (2, 1),
    "bottom left": (0, 2),
    "bottom": (1, 2),
    "bottom right": (2, 2),
}
#: name -> least and greatest extent as a share of the picture's shorter side; "" is a thing without a size word
SIZES: dict[str, tuple[float, float]] = {"small": (0.20, 0.25), "": (0.345, 0.385), "large": (0.50, 0.58)}
#: large things that share the picture with another
LARGE_OF_TWO = (0.43, 0.45)
#: extents at which one size word ends and the next begins
SIZE_BORDERS = (0.295, 0.41)
TEXTURES = ("", "striped", "outlined")
STYLES = ("", "pixel style", "blurred")
#: the style of the LoRA; the base model never sees it
LORA_STYLE = "neon style"

#: one in so many colour-shape-place triples is kept out of training
HOLD_OUT = 10


def is_held_out(colour: str, shape: str, place: str) -> bool:
    """Whether this triple is never in a training picture: by a hash of its words, so fixed for all time."""
    digest = hashlib.sha256(f"{colour}/{shape}/{place}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % HOLD_OUT == 0


def triples(held_out: bool) -> list[tuple[str, str, str]]:
    """All (colour, shape, place) that are, or are not, kept out of training."""
    return [t for t in product(COLOURS, SHAPES, PLACES) if is_held_out(*t) == held_out]


def lab(rgb: tuple[float, float, float]) -> tuple[float, float, float]:
    """CIE L*a*b* (D65) of an sRGB colour in 0..255; distances in it are about as the eye sees them (CIE 15:2004)."""
    linear = [((c / 255 + 0.055) / 1.055) ** 2.4 if c > 10.31475 else c / 255 / 12.92 for c in rgb]
    rows = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
    whites = (0.95047, 1.0, 1.08883)
    xyz = [sum(k * c for k, c in zip(row, linear)) / white for row, white in zip(rows, whites)]
    x, y, z = (t ** (1 / 3) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116 for t in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def difference(a: str, b: str) -> float:
    """Distance of two named colours in L*a*b*."""
    return sum((p - q) ** 2 for p, q in zip(lab(COLOURS[a]), lab(COLOURS[b]))) ** 0.5


def tell_apart(a: str, b: str) -> bool:
    """Whether one of these colours stands out on the other."""
    return difference(a, b) >= 40
