"""Put pictures and latents on top of each other. Source: goldens README, section G."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from comfy.errors import InputUnusable
from comfy.pixels import masks
from comfy.pixels.batch import repeat_to_batch_size
from comfy.pixels.resize import common_upscale


def composite(
    destination: torch.Tensor,
    source: torch.Tensor,
    x: int,
    y: int,
    mask: torch.Tensor | None = None,
    multiplier: int = 8,
    resize_source: bool = False,
) -> torch.Tensor:
    """Lay `source` over `destination` at (x, y), by `mask`, which is resized bilinearly to the source.

    destination, source  (b, c, h, w) or (b, c, t, h, w); x and y in units of 1/multiplier of their pixels
    Returns a new tensor like destination; what sticks out is cut.
    """
    result, source = destination.clone(), source.to(destination)
    height, width = result.shape[-2:]
    if resize_source:
        source = common_upscale(source, width, height, "bilinear", "disabled")
    source = repeat_to_batch_size(source, result.shape[0])
    weight = _placed_mask(mask, source)
    x = max(-source.shape[-1] * multiplier, min(x, width * multiplier)) // multiplier
    y = max(-source.shape[-2] * multiplier, min(y, height * multiplier)) // multiplier
    to_y, from_y, rows = _overlap(y, source.shape[-2], height)
    to_x, from_x, columns = _overlap(x, source.shape[-1], width)
    if rows <= 0 or columns <= 0:
        return result
    weight = weight[..., from_y : from_y + rows, from_x : from_x + columns]
    piece = source[..., from_y : from_y + rows, from_x : from_x + columns]
    area = result[..., to_y : to_y + rows, to_x : to_x + columns]
    result[..., to_y : to_y + rows, to_x : to_x + columns] = weight * piece + (1.0 - weight) * area
    return result


def _overlap(start: int, length: int, size: int) -> tuple[int, int, int]:
    """Where a piece at `start` begins in the destination and in itself, and how much of it is visible."""
    to, skipped = max(0, start), max(0, -start)
    return to, skipped, min(size - to, length - skipped)


def _placed_mask(mask: torch.Tensor | None, source: torch.Tensor) -> torch.Tensor:
    """(b, 1, h, w), or (b, 1, 1, h, w) for frames, of the source's size."""
    height, width = source.shape[-2:]
    if mask is None:
        return source.new_ones((1,) * (source.ndim - 2) + (height, width))
    weight = masks.resize(mask.to(source), width, height)
    weight = repeat_to_batch_size(weight, source.shape[0])
    return weight.reshape((-1,) + (1,) * (source.ndim - 3) + (height, width))


def _overlay(s: torch.Tensor, d: torch.Tensor, sa: torch.Tensor, da: torch.Tensor) -> torch.Tensor:
    # the recorded pictures have the alphas crossed in the second case; kept, since equal pictures are the aim
    return torch.where(2 * d < da, 2 * s * d, sa * da - 2 * (da - s) * (sa - d))


Mode = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

#: (source, destination, their alphas) -> (colour, alpha), all premultiplied. Porter and Duff 1984, and Android's names
PORTER_DUFF: dict[str, Mode] = {
    "ADD": lambda s, d, sa, da: ((s + d).clamp(0, 1), (sa + da).clamp(0, 1)),
    "CLEAR": lambda s, d, sa, da: (torch.zeros_like(d), torch.zeros_like(da)),
    "DARKEN": lambda s, d, sa, da: ((1 - da) * s + (1 - sa) * d + torch.min(s, d), sa + da - sa * da),
    "DST": lambda s, d, sa, da: (d, da),
    "DST_ATOP": lambda s, d, sa, da: (sa * d + (1 - da) * s, sa),
    "DST_IN": lambda s, d, sa, da: (d * sa, da * sa),
    "DST_OUT": lambda s, d, sa, da: ((1 - sa) * d, (1 - sa) * da),
    "DST_OVER": lambda s, d, sa, da: (d + (1 - da) * s, da + (1 - da) * sa),
    "LIGHTEN": lambda s, d, sa, da: ((1 - da) * s + (1 - sa) * d + torch.max(s, d), sa + da - sa * da),
    "MULTIPLY": lambda s, d, sa, da: (s * d, sa * da),
    "OVERLAY": lambda s, d, sa, da: (_overlay(s, d, sa, da), sa + da - sa * da),
    "SCREEN": lambda s, d, sa, da: (s + d - s * d, sa + da - sa * da),
    "SRC": lambda s, d, sa, da: (s, sa),
    "SRC_ATOP": lambda s, d, sa, da: (da * s + (1 - sa) * d, da),
    "SRC_IN": lambda s, d, sa, da: (s * da, sa * da),
    "SRC_OUT": lambda s, d, sa, da: ((1 - da) * s, (1 - da) * sa),
    "SRC_OVER": lambda s, d, sa, da: (s + (1 - sa) * d, sa + (1 - sa) * da),
    "XOR": lambda s, d, sa, da: ((1 - da) * s + (1 - sa) * d, (1 - da) * sa + (1 - sa) * da),
}


def porter_duff(
    source: torch.Tensor, source_mask: torch.Tensor, destination: torch.Tensor, destination_mask: torch.Tensor, mode: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Composite pictures whose transparency is a mask (1 - alpha).

    source, destination  (b, h, w, 3); the masks (b, h, w); all are brought to the destination's size (bicubic, centre
    crop) and the batch is the shortest of the four. Returns (picture, mask) with straight colours, clamped to 0..1.
    """
    if mode not in PORTER_DUFF:
        raise InputUnusable("The compositing mode is not known.", mode=mode)
    batch = min(len(source), len(source_mask), len(destination), len(destination_mask))
    height, width = destination.shape[1:3]
    tensors = [_fitted(t[:batch], width, height) for t in (source[..., :3], destination[..., :3])]
    alphas = [1 - _fitted(masks.as_batch(m)[:batch].unsqueeze(-1), width, height) for m in (source_mask, destination_mask)]
    color, alpha = PORTER_DUFF[mode](tensors[0] * alphas[0], tensors[1] * alphas[1], *alphas)
    straight = torch.where(alpha > 1e-5, color / alpha, torch.zeros_like(color))
    return straight.clamp(0, 1), 1 - alpha.squeeze(-1)


def _fitted(x_bhwc: torch.Tensor, width: int, height: int) -> torch.Tensor:
    if x_bhwc.shape[1:3] == (height, width):
        return x_bhwc
    return common_upscale(x_bhwc.movedim(-1, 1), width, height, "bicubic", "center").movedim(1, -1)


def split_alpha(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(b, h, w, c) -> colours (b, h, w, 3) and mask 1 - alpha (b, h, w); opaque when there is no alpha."""
    if image.shape[-1] > 3:
        return image[..., :3], 1.0 - image[..., 3]
    return image[..., :3], torch.zeros_like(image[..., 0])


def join_alpha(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(b, h, w, 4): the picture with alpha 1 - mask, the mask resized bilinearly; the longer batch counts."""
    height, width = image.shape[1:3]
    batch = max(len(image), len(masks.as_batch(mask)))
    alpha = 1.0 - masks.resize(mask.to(image), width, height).unsqueeze(-1)
    return torch.cat((repeat_to_batch_size(image[..., :3], batch), repeat_to_batch_size(alpha, batch)), dim=-1)


def outpaint(image: torch.Tensor, left: int, top: int, right: int, bottom: int, feathering: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Grey border 0.5 around (b, h, w, c), and the mask (1, H, W) of where to paint.

    The mask is 1 outside; inside it is ((f - d)/f)^2 at distance d < f of a padded side, none if 2 f reaches a side.
    """
    height, width = image.shape[1:3]
    channels_last = F.pad(image.movedim(-1, 1), (left, right, top, bottom), value=0.5)
    mask = torch.ones((top + height + bottom, left + width + right), dtype=torch.float32, device=image.device)
    inside = torch.zeros((height, width), dtype=torch.float32, device=image.device)
    if feathering > 0 and 2 * feathering < min(height, width):
        rows = _distance(height, top, bottom, image.device)[:, None]
        columns = _distance(width, left, right, image.device)[None, :]
        nearest = torch.minimum(rows, columns)
        inside = ((feathering - nearest) / feathering).clamp(min=0.0) ** 2
    mask[top : top + height, left : left + width] = inside
    return channels_last.movedim(1, -1), mask.unsqueeze(0)


def _distance(size: int, before: int, after: int, device: torch.device) -> torch.Tensor:
    """Pixels to the nearer padded end of an axis; far away where neither end is padded."""
    index = torch.arange(size, dtype=torch.float32, device=device)
    far = torch.full_like(index, float(size))
    return torch.minimum(index if before else far, size - index if after else far)


def _anchored(size: int, piece: int) -> int:
    return (size - piece) // 2


def pad_centred(image: torch.Tensor, width: int, height: int, value: float) -> torch.Tensor:
    """(b, h, w, c) in the middle of a `width` x `height` canvas of one grey level; it must fit."""
    h, w = image.shape[1:3]
    left, top = _anchored(width, w), _anchored(height, h)
    return F.pad(image.movedim(-1, 1), (left, width - w - left, top, height - h - top), value=value).movedim(1, -1)
