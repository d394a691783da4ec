"""Change the size of pictures, masks and latents. Source of every rule: goldens README, section G."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from comfy.errors import InputUnusable

INTERPOLATE_MODES = ("nearest-exact", "nearest", "bilinear", "area", "bicubic")
CROP_MODES = ("disabled", "center")


def common_upscale(samples: torch.Tensor, width: int, height: int, upscale_method: str, crop: str) -> torch.Tensor:
    """Resize to `width` x `height`: crop to the new aspect if asked, then interpolate without antialiasing.

    samples  (b, c, h, w), or (b, c, t, h, w) where every frame is resized alone; any float dtype
    Returns the same rank, not clamped (bicubic overshoots). Raises InputUnusable for an unknown method or an empty size.
    """
    if width < 1 or height < 1:
        raise InputUnusable("A picture cannot be resized to nothing.", width=width, height=height)
    if samples.ndim == 5:
        b, c, t, h, w = samples.shape
        frames = samples.movedim(2, 1).reshape(b * t, c, h, w)
        resized = common_upscale(frames, width, height, upscale_method, crop)
        return resized.reshape(b, t, c, height, width).movedim(1, 2)
    if crop == "center":
        samples = crop_to_aspect(samples, width, height)
    if upscale_method == "bislerp":
        return bislerp(samples, width, height)
    if upscale_method == "lanczos":
        return lanczos(samples, width, height)
    if upscale_method not in INTERPOLATE_MODES:
        raise InputUnusable("The resize method is not known.", upscale_method=upscale_method)
    return F.interpolate(samples, size=(height, width), mode=upscale_method)


def crop_to_aspect(samples: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """The centred part of (b, c, h, w) that has the aspect of `width` x `height`; a view."""
    old_height, old_width = samples.shape[-2:]
    old_aspect, new_aspect = old_width / old_height, width / height
    x = y = 0
    if old_aspect > new_aspect:
        x = round((old_width - old_width * (new_aspect / old_aspect)) / 2)
    elif old_aspect < new_aspect:
        y = round((old_height - old_height * (old_aspect / new_aspect)) / 2)
    return samples.narrow(-2, y, old_height - 2 * y).narrow(-1, x, old_width - 2 * x)


def resize_images(image: torch.Tensor, width: int, height: int, method: str, crop: str = "disabled") -> torch.Tensor:
    """`common_upscale` on node pictures: (b, h, w, c) -> (b, height, width, c)."""
    return common_upscale(image.movedim(-1, 1), width, height, method, crop).movedim(1, -1)


def keep_aspect(width: int, height: int, target_width: int, target_height: int) -> tuple[int, int]:
    """A target whose side is 0 follows the picture's aspect (rounded, at least 1); both 0 is the caller's affair."""
    if target_width == 0:
        target_width = max(1, round(width * target_height / height))
    elif target_height == 0:
        target_height = max(1, round(height * target_width / width))
    return target_width, target_height


def lanczos(samples: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Pillow's Lanczos filter on 8-bit pictures: clip to 0..1, truncate to bytes, resize, divide by 255.

    samples  (b, c, h, w) with 1, 3 or 4 channels as one picture; other counts channel by channel
    """
    pixels = samples.detach().movedim(1, -1).float().clamp(0.0, 1.0).mul(255.0).to("cpu", torch.uint8).numpy()
    resized = np.stack([_lanczos_bytes(picture, width, height) for picture in pixels])
    return torch.from_numpy(resized).to(samples.device, samples.dtype).div(255.0).movedim(-1, 1)


def _lanczos_bytes(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    if picture.shape[-1] in (3, 4):
        return np.asarray(Image.fromarray(picture).resize((width, height), resample=Image.Resampling.LANCZOS))
    planes = [Image.fromarray(np.ascontiguousarray(picture[..., k])) for k in range(picture.shape[-1])]
    return np.stack([np.asarray(plane.resize((width, height), resample=Image.Resampling.LANCZOS)) for plane in planes], -1)


def bislerp(samples: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Resize a latent so that directions turn and norms mix: slerp along the width, then along the height.

    The channel vector of a new position is the spherical interpolation (Shoemake 1985) of its two neighbours, its
    length the linear one. Nearly parallel neighbours give the left one, nearly opposite ones are mixed linearly.
    samples  (b, c, h, w); computed in float32, returned in the dtype given
    """
    rows = _slerp_last_axis(samples.float(), width)
    columns = _slerp_last_axis(rows.transpose(-1, -2), height)
    return columns.transpose(-1, -2).to(samples.dtype)


def _slerp_last_axis(x: torch.Tensor, size: int) -> torch.Tensor:
    """(b, c, h, w) -> (b, c, h, size)."""
    old = x.shape[-1]
    left, right, ratio = _source_positions(old, size, x.device)
    return _slerp(x[..., left], x[..., right], ratio)


def _source_positions(old: int, new: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For each new position: index of the left and of the right neighbour, and how far it lies between them.

    Both neighbours come from ramps that torch resizes bilinearly, so positions agree with its half-pixel rule.
    """
    ramp = torch.arange(old, dtype=torch.float32, device=device).reshape(1, 1, 1, -1)
    place = F.interpolate(ramp, size=(1, new), mode="bilinear").flatten()
    following = (ramp + 1).clamp(max=old - 1)
    left = place.long()
    right = F.interpolate(following, size=(1, new), mode="bilinear").flatten().long()
    return left, right, place - place.floor()


def _slerp(a: torch.Tensor, b: torch.Tensor, ratio: torch.Tensor) -> torch.Tensor:
    """Between the channel vectors (axis 1) of a and b; `ratio` broadcasts over the last axis."""
    norm_a, norm_b = a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True)
    unit_a, unit_b = _unit(a, norm_a), _unit(b, norm_b)
    cosine = (unit_a * unit_b).sum(1, keepdim=True)
    omega = cosine.clamp(-1.0, 1.0).acos()
    sine = omega.sin()
    turned = ((1.0 - ratio) * omega).sin() / sine * unit_a + (ratio * omega).sin() / sine * unit_b
    turned = turned * (norm_a * (1.0 - ratio) + norm_b * ratio)
    turned = torch.where(cosine > 1 - 1e-5, a, turned)
    return torch.where(cosine < 1e-5 - 1, a * (1.0 - ratio) + b * ratio, turned)


def _unit(vector: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
    return torch.where(norm == 0.0, torch.zeros_like(vector), vector / norm)


def total_pixels(width: int, height: int, megapixels: float) -> tuple[int, int]:
    """The size with the picture's aspect and about int(megapixels x 1024^2) pixels."""
    factor = (int(megapixels * 1024 * 1024) / (width * height)) ** 0.5
    return round(width * factor), round(height * factor)
