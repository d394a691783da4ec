"""Masks: (b, h, w) float in 0..1, 1 marks the place. Source: goldens README, section G."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from comfy.errors import InputUnusable

COMPOSITE_OPERATIONS = ("multiply", "add", "subtract", "and", "or", "xor")


def as_batch(mask: torch.Tensor) -> torch.Tensor:
    """(h, w) or (..., h, w) -> (b, h, w)."""
    return mask.reshape((-1, *mask.shape[-2:]))


def grow(mask: torch.Tensor, expand: int, tapered_corners: bool) -> torch.Tensor:
    """|expand| grey dilations (or erosions, when negative) with a plus, or with a full 3 x 3 square."""
    grown = as_batch(mask)
    sign = 1.0 if expand >= 0 else -1.0
    grown = grown * sign
    for _ in range(abs(expand)):
        larger = _dilate_3x3(grown, tapered_corners)
        if torch.equal(larger, grown):  # nothing left to grow into: the remaining rounds change nothing
            break
        grown = larger
    return grown * sign


def _dilate_3x3(mask: torch.Tensor, tapered_corners: bool) -> torch.Tensor:
    x = mask.unsqueeze(1)
    if tapered_corners:
        x = torch.maximum(F.max_pool2d(x, (3, 1), 1, (1, 0)), F.max_pool2d(x, (1, 3), 1, (0, 1)))
    else:
        x = F.max_pool2d(x, 3, 1, 1)
    return x.squeeze(1)


def feather(mask: torch.Tensor, left: int, top: int, right: int, bottom: int) -> torch.Tensor:
    """Ramps (i + 1)/n towards each side.

    The right and bottom ramps run over columns and rows -i, so their first factor lands on column or row 0: the
    recorded behaviour, which keeps pictures equal.
    """
    feathered = as_batch(mask).clone()
    height, width = feathered.shape[-2:]
    columns, rows = feathered.new_ones(width), feathered.new_ones(height)
    for factors, size, count, step in (
        (columns, width, left, 1),
        (columns, width, right, -1),
        (rows, height, top, 1),
        (rows, height, bottom, -1),
    ):
        count = min(count, size)
        for i in range(count):
            factors[(step * i) % size] *= (i + 1.0) / count
    return feathered * columns * rows[:, None]


def crop(mask: torch.Tensor, x: int, y: int, width: int, height: int) -> torch.Tensor:
    """The part at (x, y); what lies outside the mask is left out. Raises InputUnusable when nothing is left."""
    part = as_batch(mask)[:, y : y + height, x : x + width]
    if part.numel() == 0:
        raise InputUnusable("The crop lies outside the mask.", x=x, y=y, width=mask.shape[-1], height=mask.shape[-2])
    return part


def threshold(mask: torch.Tensor, value: float) -> torch.Tensor:
    """1 where the mask is over `value`, else 0."""
    return (mask > value).float()


def composite(destination: torch.Tensor, source: torch.Tensor, x: int, y: int, operation: str) -> torch.Tensor:
    """Combine `source`, placed at (x, y), with the destination it covers; and, or, xor work on rounded values.

    Returns a new mask like the destination, clamped to 0..1. Raises InputUnusable when the batches do not fit.
    """
    result, piece = as_batch(destination).clone(), as_batch(source)
    if piece.shape[0] not in (1, result.shape[0]):
        raise InputUnusable("The source mask's batch does not fit the destination's.", source=piece.shape[0], destination=result.shape[0])
    height, width = max(0, min(piece.shape[1], result.shape[1] - y)), max(0, min(piece.shape[2], result.shape[2] - x))
    if height and width:
        area = result[:, y : y + height, x : x + width]
        result[:, y : y + height, x : x + width] = _combine(area, piece[:, :height, :width].to(area), operation)
    return result.clamp(0.0, 1.0)


def _combine(area: torch.Tensor, piece: torch.Tensor, operation: str) -> torch.Tensor:
    if operation == "multiply":
        return area * piece
    if operation == "add":
        return area + piece
    if operation == "subtract":
        return area - piece
    a, b = area.round().bool(), piece.round().bool()
    if operation == "and":
        return (a & b).float()
    if operation == "or":
        return (a | b).float()
    if operation == "xor":
        return (a ^ b).float()
    raise InputUnusable("The mask operation is not known.", operation=operation)


def from_color(image: torch.Tensor, color: int) -> torch.Tensor:
    """1 where the picture's first three channels have exactly the 24-bit colour 0xRRGGBB; (b, h, w, c) -> (b, h, w)."""
    levels = (image[..., :3].clamp(0.0, 1.0) * 255.0).round().to(torch.int64)
    packed = (levels[..., 0] << 16) + (levels[..., 1] << 8) + levels[..., 2]
    return (packed == color).float()


def to_image(mask: torch.Tensor) -> torch.Tensor:
    """Grey picture: (b, h, w) -> (b, h, w, 3)."""
    return as_batch(mask).unsqueeze(-1).expand(-1, -1, -1, 3)


def resize(mask: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Bilinear: (b, h, w) -> (b, height, width)."""
    return F.interpolate(as_batch(mask).unsqueeze(1), size=(height, width), mode="bilinear").squeeze(1)


def inpaint_mask(mask: torch.Tensor, height: int, width: int, grow_by: int) -> torch.Tensor:
    """The binary noise mask of VAEEncodeForInpaint (goldens README, D.3): round(m) grown by a g x g box.

    mask  (b, 1, h, w), already at the picture's size; returns (b, 1, height, width) of zeros and ones
    """
    rounded = mask.round()
    if grow_by > 0:
        kernel = torch.ones((1, 1, grow_by, grow_by), dtype=mask.dtype, device=mask.device)
        padding = -(-(grow_by - 1) // 2)
        rounded = F.conv2d(rounded, kernel, padding=padding).clamp(0.0, 1.0)
    return rounded[:, :, :height, :width].round()
