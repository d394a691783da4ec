"""Make batches agree in length and pictures in size. Source: goldens README, section G."""

from __future__ import annotations

import math

import torch

from comfy.pixels.resize import common_upscale, resize_images


def repeat_to_batch_size(tensor: torch.Tensor, batch_size: int, dim: int = 0) -> torch.Tensor:
    """Repeat the items of axis `dim` cyclically, or cut, to `batch_size` of them."""
    have = tensor.shape[dim]
    if have > batch_size:
        return tensor.narrow(dim, 0, batch_size)
    if have < batch_size:
        times = [1] * tensor.ndim
        times[dim] = math.ceil(batch_size / have)
        return tensor.repeat(times).narrow(dim, 0, batch_size)
    return tensor


def resize_to_batch_size(tensor: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Spread the items of axis 0 evenly over `batch_size` places.

    Shrinking from n to m picks round(i (n-1)/(m-1)) (the first for m = 1); growing picks floor((i + 1/2) n/m).
    """
    have = tensor.shape[0]
    if have == batch_size:
        return tensor
    if batch_size <= 1:
        return tensor[:batch_size]
    if batch_size < have:
        picked = [round(i * (have - 1) / (batch_size - 1)) for i in range(batch_size)]
    else:
        picked = [min(have - 1, math.floor((i + 0.5) * have / batch_size)) for i in range(batch_size)]
    return tensor[picked]


def matched_channels(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two node pictures (b, h, w, c) with one channel count: an opaque alpha is added where the other has one."""
    wide = max(a.shape[-1], b.shape[-1])
    return _with_channels(a, wide), _with_channels(b, wide)


def _with_channels(image: torch.Tensor, channels: int) -> torch.Tensor:
    missing = channels - image.shape[-1]
    if missing <= 0:
        return image
    return torch.nn.functional.pad(image, (0, missing), mode="constant", value=1.0)


def batch_images(image1: torch.Tensor, image2: torch.Tensor) -> torch.Tensor:
    """One batch of both: the second is resized (bilinear, centre crop) to the first. (b1 + b2, h, w, c)."""
    image1, image2 = matched_channels(image1, image2)
    if image1.shape[1:] != image2.shape[1:]:
        image2 = resize_images(image2, image1.shape[2], image1.shape[1], "bilinear", "center")
    return torch.cat((image1, image2), dim=0)


def latent_like(target: torch.Tensor, latent: torch.Tensor, repeat_batch: bool = True) -> torch.Tensor:
    """`latent` resized (bilinear, centre crop) to the spatial size of `target` and, if asked, to its batch."""
    if latent.shape[-2:] != target.shape[-2:]:
        latent = common_upscale(latent, target.shape[-1], target.shape[-2], "bilinear", "center")
    return repeat_to_batch_size(latent, target.shape[0]) if repeat_batch else latent


def rebatch_images(images: list[torch.Tensor], batch_size: int) -> list[torch.Tensor]:
    """The pictures of all batches, in order, in batches of at most `batch_size`; sizes are not mixed or changed."""
    singles = [image[i : i + 1] for image in images for i in range(image.shape[0])]
    batches: list[list[torch.Tensor]] = []
    for single in singles:
        if batches and len(batches[-1]) < batch_size and batches[-1][0].shape == single.shape:
            batches[-1].append(single)
        else:
            batches.append([single])
    return [torch.cat(batch, dim=0) for batch in batches]
