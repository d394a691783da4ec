"""Morphology, colour spaces and edges of pictures (b, h, w, c). Source: goldens README, section G; Canny 1986 for edges."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from comfy.errors import InputUnusable

OPERATIONS = ("erode", "dilate", "open", "close", "gradient", "bottom_hat", "top_hat")


def morphology(image: torch.Tensor, operation: str, size: int) -> torch.Tensor:
    """Flat `size` x `size` structuring element, borders ignored; (b, h, w, c)."""
    x = image.movedim(-1, 1)
    if operation == "dilate":
        made = _dilate(x, size)
    elif operation == "erode":
        made = _erode(x, size)
    elif operation == "open":
        made = _dilate(_erode(x, size), size)
    elif operation == "close":
        made = _erode(_dilate(x, size), size)
    elif operation == "gradient":
        made = _dilate(x, size) - _erode(x, size)
    elif operation == "top_hat":
        made = x - _dilate(_erode(x, size), size)
    elif operation == "bottom_hat":
        made = _erode(_dilate(x, size), size) - x
    else:
        raise InputUnusable("The operation is not known.", operation=operation)
    return made.movedim(1, -1)


def _dilate(x_bchw: torch.Tensor, size: int) -> torch.Tensor:
    before = size // 2
    after = size - 1 - before
    padded = F.pad(x_bchw, (before, after, before, after), value=float("-inf"))
    return F.max_pool2d(F.max_pool2d(padded, (size, 1), 1), (1, size), 1)


def _erode(x_bchw: torch.Tensor, size: int) -> torch.Tensor:
    return -_dilate(-x_bchw, size)


def rgb_to_yuv(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """JPEG's YCbCr (ITU-T T.871), each plane as a grey picture (b, h, w, 3)."""
    r, g, b = image[..., 0], image[..., 1], image[..., 2]
    y = 0.299 * r + 0.587 * g + 0.114 * b
    cb = (b - y) * 0.564 + 0.5
    cr = (r - y) * 0.713 + 0.5
    planes = [plane.unsqueeze(-1).expand(*plane.shape, 3) for plane in (y, cb, cr)]
    return planes[0], planes[1], planes[2]


def yuv_to_rgb(y: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The exact inverse of `rgb_to_yuv`; each plane is the mean of its picture's channels. (b, h, w, 3)."""
    luma, cb, cr = y.mean(-1), (u.mean(-1) - 0.5) / 0.564, (v.mean(-1) - 0.5) / 0.713
    red, blue = luma + cr, luma + cb
    return torch.stack((red, (luma - 0.299 * red - 0.114 * blue) / 0.587, blue), dim=-1)


def luma(image: torch.Tensor) -> torch.Tensor:
    """Brightness with the weights of ITU-R BT.601: (b, h, w, 3) -> (b, h, w)."""
    return 0.299 * image[..., 0] + 0.587 * image[..., 1] + 0.114 * image[..., 2]


def canny(image: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Edges after Canny 1986: Gaussian 5 x 5 (sigma 1), Sobel, thinning along the gradient, hysteresis.

    low, high  thresholds on the length of the Sobel gradient, not divided by its weights, for pictures in 0..1
    Returns (b, h, w, 3) of 0 and 1: weak edges stay when a chain of edges joins them to a strong one.
    """
    if high < low:
        raise InputUnusable("The high threshold must not be under the low one.", low_threshold=low, high_threshold=high)
    grey = luma(image[..., :3].expand(*image.shape[:-1], 3) if image.shape[-1] == 1 else image).unsqueeze(1)
    ramp = torch.arange(-2.0, 3.0, device=image.device)
    gauss = torch.exp(-(ramp**2) / 2)
    gauss = (gauss / gauss.sum()).to(grey)
    smooth = F.conv2d(F.pad(grey, (2, 2, 2, 2), "replicate"), (gauss[:, None] * gauss)[None, None])
    sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]).to(smooth)
    around = F.pad(smooth, (1, 1, 1, 1), "replicate")
    dx, dy = F.conv2d(around, sobel[None, None]), F.conv2d(around, sobel.T[None, None])
    length = torch.sqrt(dx * dx + dy * dy + 1e-6)
    thin = _thinned(length, dx, dy)
    edges = _hysteresis(thin > low, thin > high)
    return edges.float().movedim(1, -1).expand(-1, -1, -1, 3)


def _thinned(length: torch.Tensor, dx: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
    """Gradient lengths that are not under either neighbour along the gradient's direction; others 0. (b, 1, h, w)."""
    octant = torch.round(torch.atan2(dy, dx) * (4 / torch.pi)).long() % 4
    padded = F.pad(length, (1, 1, 1, 1))
    h, w = length.shape[-2:]
    kept = torch.zeros_like(length, dtype=torch.bool)
    for index, (sy, sx) in enumerate(((0, 1), (1, 1), (1, 0), (1, -1))):
        ahead = padded[..., 1 + sy : 1 + sy + h, 1 + sx : 1 + sx + w]
        behind = padded[..., 1 - sy : 1 - sy + h, 1 - sx : 1 - sx + w]
        kept |= (octant == index) & (length > ahead) & (length >= behind)
    return torch.where(kept, length, torch.zeros_like(length))


def _hysteresis(weak: torch.Tensor, strong: torch.Tensor) -> torch.Tensor:
    """Weak places that are joined, over eight neighbours, to a strong one."""
    edges = strong
    while True:
        wider = weak & (F.max_pool2d(edges.float(), 3, 1, 1) > 0)
        if torch.equal(wider, edges):
            return edges
        edges = wider
