"""Other rules than plain classifier-free guidance: pure functions of the predictions (contract D.1).

c, u, e   predictions of x0 for the positive, the negative and the empty conditioning, (b, c, h, w), like x
g         scale of the guidance
"""

from __future__ import annotations

import torch
from torch import Tensor

from comfy.sampling.prediction import per_sample


def _sum(a: Tensor) -> Tensor:
    """Sum over everything but the batch, keeping dimensions."""
    return a.sum(dim=tuple(range(1, a.ndim)), keepdim=True)


def rescale(c: Tensor, u: Tensor, g: float, x: Tensor, sigma: Tensor, phi: float) -> Tensor:
    """Guidance in v-space whose spread is pulled back to the positive's. Lin et al. 2023, arXiv:2305.08891, eq. 15 and 16."""
    sigma = per_sample(sigma, x)
    scaled, root = x / (sigma**2 + 1.0), (sigma**2 + 1.0) ** 0.5
    v_c, v_u = ((scaled - p) * root / sigma for p in (c, u))
    guided = v_u + g * (v_c - v_u)
    dims = tuple(range(1, x.ndim))
    matched = guided * (v_c.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True))
    v = phi * matched + (1.0 - phi) * guided
    return scaled - v * sigma / root


def zero_star(c: Tensor, u: Tensor, g: float, x: Tensor, guided: Tensor) -> Tensor:
    """CFG-Zero*: the negative scaled to fit the positive best. Fan et al. 2025, arXiv:2503.18886."""
    noise_c, noise_u = x - c, x - u
    s = _sum(noise_c * noise_u) / (_sum(noise_u**2) + 1e-8)
    return guided + u * (s - 1.0) + g * u * (1.0 - s)


def norm_limited(c: Tensor, guided: Tensor, strength: float) -> Tensor:
    """The guided prediction, nowhere longer (over channels) than the positive's."""
    ratio = c.norm(dim=1, keepdim=True) / (guided.norm(dim=1, keepdim=True) + 1e-8)
    return guided * ratio.clamp(min=0.0, max=1.0) * strength


def projected_difference(delta: Tensor, c: Tensor, eta: float, threshold: float) -> Tensor:
    """The difference of two predictions, at most `threshold` long, its part along c scaled by eta. arXiv:2410.02416."""
    if threshold > 0:
        length = _sum(delta**2).sqrt()
        delta = delta * (threshold / length).clamp(max=1.0)
    direction = c / _sum(c**2).sqrt().clamp(min=1e-12)
    parallel = _sum(delta * direction) * direction
    return delta - parallel + eta * parallel


def tangential(c: Tensor, u: Tensor, x: Tensor) -> Tensor:
    """The negative whose noise keeps only its part along the first right singular vector. Kwon et al. 2025, arXiv:2503.18137."""
    pair = torch.stack([(x - c).flatten(1), (x - u).flatten(1)], dim=1).float()
    first = torch.linalg.svd(pair, full_matrices=False).Vh[:, :1]
    noise_u = pair[:, 1:]
    kept = (noise_u @ first.transpose(1, 2)) @ first
    return x - kept.reshape(x.shape).to(x)


def mahiro(c: Tensor, u: Tensor, g: float, guided: Tensor) -> Tensor:
    """Between plain guidance and g c, by how alike the two directions are."""

    def root(t: Tensor) -> Tensor:
        return t.sign() * t.abs().sqrt()

    leap = g * c
    alike = torch.nn.functional.cosine_similarity(root(g * u), root((leap + guided) / 2), dim=1).mean()
    s = 2 * (alike + 1)
    return (s * guided + (4 - s) * leap) / 4


def frequency_scaled(delta: Tensor, low: float, high: float, cutoff: int) -> Tensor:
    """FreSca: low and high frequencies of a difference (…, h, w) scaled apart. Huang et al. 2025, arXiv:2504.02154."""
    spectrum = torch.fft.fftshift(torch.fft.fftn(delta.float(), dim=(-2, -1)), dim=(-2, -1))
    height, width = delta.shape[-2:]
    middle_y, middle_x = height // 2, width // 2
    half_y, half_x = min(cutoff, middle_y), min(cutoff, middle_x)
    mask = torch.full((height, width), high, dtype=torch.float32, device=delta.device)
    mask[middle_y - half_y : middle_y + half_y, middle_x - half_x : middle_x + half_x] = low
    filtered = torch.fft.ifftn(torch.fft.ifftshift(spectrum * mask, dim=(-2, -1)), dim=(-2, -1)).real
    return filtered.to(delta.dtype)


def perpendicular_negative(c: Tensor, u: Tensor, e: Tensor, g: float, neg_scale: float) -> Tensor:
    """Only what of the negative is perpendicular to the positive. Armandpour et al. 2023, arXiv:2304.04968. Over the whole batch."""
    positive, negative = c - e, u - e
    perpendicular = negative - ((negative * positive).sum() / (positive.norm() ** 2)) * positive
    return e + g * (positive - perpendicular * neg_scale)


def step_mask(mask: Tensor, now: Tensor, first: Tensor, last: Tensor, strength: float) -> Tensor:
    """Differential diffusion: where the mask is free at timestep `now`. Levin and Fried 2023, arXiv:2306.00950.

    strength in (0, 1) mixes the step's binary mask with the given one; 0 counts as 1.
    """
    threshold = (now - last) / (first - last)
    binary = (mask >= threshold).to(mask.dtype)
    if 0.0 < strength < 1.0:
        return strength * binary + (1 - strength) * mask
    return binary
