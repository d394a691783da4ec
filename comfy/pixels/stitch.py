"""Two pictures side by side. Source: goldens README, section G, cases ImageStitch."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from comfy.errors import InputUnusable
from comfy.pixels.batch import matched_channels
from comfy.pixels.resize import resize_images

COLORS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0), "red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}


def stitch(image1: torch.Tensor, image2: torch.Tensor | None, direction: str, match_size: bool, spacing: int, color: str) -> torch.Tensor:
    """`image2` to the right of, under, to the left of or over `image1`, with a coloured strip between them.

    image1, image2  (b, h, w, c); the shorter batch repeats its last picture
    match_size      resize the second (Lanczos) so that the touching sides agree; else the smaller one is centred on black
    spacing         pixels, made even
    """
    if image2 is None:
        return image1
    if direction not in ("right", "down", "left", "up"):
        raise InputUnusable("The direction is not known.", direction=direction)
    batch = max(len(image1), len(image2))
    image1, image2 = (torch.cat((t, t[-1:].expand(batch - len(t), -1, -1, -1))) for t in (image1, image2))
    beside = direction in ("right", "left")
    if match_size:
        image2 = _matched(image1, image2, beside)
    image1, image2 = matched_channels(image1, image2)
    if not match_size:
        image1, image2 = _centred(image1, image2, beside)
    parts = [image2, image1] if direction in ("left", "up") else [image1, image2]
    spacing += spacing % 2
    if spacing:
        parts.insert(1, _strip(image1, beside, spacing, color))
    return torch.cat(parts, dim=2 if beside else 1)


def _matched(image1: torch.Tensor, image2: torch.Tensor, beside: bool) -> torch.Tensor:
    (h1, w1), (h2, w2) = image1.shape[1:3], image2.shape[1:3]
    width, height = (int(h1 * w2 / h2), h1) if beside else (w1, int(w1 * h2 / w2))
    return resize_images(image2, max(1, width), max(1, height), "lanczos")


def _centred(image1: torch.Tensor, image2: torch.Tensor, beside: bool) -> tuple[torch.Tensor, torch.Tensor]:
    axis = 1 if beside else 2
    side = max(image1.shape[axis], image2.shape[axis])
    return _padded(image1, axis, side), _padded(image2, axis, side)


def _padded(image: torch.Tensor, axis: int, side: int) -> torch.Tensor:
    missing = side - image.shape[axis]
    if missing == 0:
        return image
    before = missing // 2
    around = (0, 0, 0, 0, before, missing - before) if axis == 1 else (0, 0, before, missing - before)
    return F.pad(image, around, value=0.0)


def _strip(like: torch.Tensor, beside: bool, spacing: int, color: str) -> torch.Tensor:
    batch, height, width, channels = like.shape
    if color not in COLORS:
        raise InputUnusable("The colour is not known.", color=color)
    value = torch.tensor([*COLORS[color], 1.0][:channels]).to(like)
    shape = (batch, height, spacing, channels) if beside else (batch, spacing, width, channels)
    return value.expand(shape)
