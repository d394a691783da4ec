"""The extra latent channels of UNets that take more than the noisy latent. Contract: goldens README D.3, models.md section 5."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from comfy.pixels.resize import common_upscale

#: what stands for an empty picture in an inpainting model's latent, by channel
BLANK = (0.8223, -0.6876, 0.6364, 0.1380)


def blank_latent(like: Tensor) -> Tensor:
    """The latent of a grey picture with the shape of `like` (b, 4, …)."""
    values = torch.tensor(BLANK, dtype=like.dtype, device=like.device).view(1, -1, *[1] * (like.ndim - 2))
    return values.expand_as(like).clone()


def inpaint_concat(
    noise: Tensor,
    scale: Callable[[Tensor], Tensor],
    *,
    concat_mask: Tensor | None = None,
    concat_latent_image: Tensor | None = None,
    denoise_mask: Tensor | None = None,
    latent_image: Tensor | None = None,
) -> Tensor:
    """[mask, masked latent] for a UNet with 9 channels in.

    noise                (b, 4, h, w), for its shape, dtype and device
    scale                a latent in the nodes' scale -> the model's
    concat_mask, concat_latent_image   of the conditioning, in the nodes' scale, at any size and batch
    denoise_mask, latent_image         of the sampling, already the model's; used when the conditioning has none
    Returns (b, 5, h, w): the mask is 0 or 1, resized (bilinear, centre) before it is rounded. Without any mask: ones and
    the latent of grey.
    """
    if concat_latent_image is not None:
        latent: Tensor | None = scale(concat_latent_image.to(noise))
    else:
        latent = latent_image
    mask = concat_mask if concat_mask is not None else denoise_mask
    if mask is None:
        mask_b1hw = torch.ones_like(noise[:, :1])
        masked = blank_latent(noise)
    else:
        mask_b1hw = _fitted(_one_channel(mask.to(noise)), noise).round()
        masked = blank_latent(noise) if latent is None else _fitted(latent.to(noise), noise)
    return torch.cat([mask_b1hw, masked], dim=1)


def edit_concat(noise: Tensor, concat_latent_image: Tensor | None) -> Tensor:
    """(b, 4, h, w): the picture to edit, as a UNet with 8 channels in takes it (Brooks et al. 2022, arXiv:2211.09800): unscaled."""
    if concat_latent_image is None:
        return torch.zeros_like(noise)
    return _fitted(concat_latent_image.to(noise), noise)


def _one_channel(mask: Tensor) -> Tensor:
    """(h, w), (b, h, w) or (b, c, h, w) -> (b, 1, h, w)"""
    if mask.ndim < 4:
        return mask.reshape(-1, 1, *mask.shape[-2:])
    return mask[:, :1]


def _fitted(tensor: Tensor, noise: Tensor) -> Tensor:
    """`tensor` resized and repeated to the batch, height and width of `noise`."""
    height, width = noise.shape[-2:]
    if tensor.shape[-2:] != noise.shape[-2:]:
        tensor = common_upscale(tensor, width, height, "bilinear", "center")
    count = noise.shape[0]
    if tensor.shape[0] != count:
        tensor = tensor.repeat(-(-count // tensor.shape[0]), *[1] * (tensor.ndim - 1))[:count]
    return tensor
