"""Guidance by a network whose self-attention in the middle is spoilt.

PerturbedAttention: Ahn et al. 2024, arXiv:2403.17377. SelfAttentionGuidance: Hong et al. 2022, arXiv:2210.00939.
Both are post-CFG functions (contract: custom-nodes.md section 6): they get predictions of the clean latent.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from comfy.sampling.extension import copy_nested_dicts
from comfy.sampling.guidance import calc_cond_batch
from comfy.sampling.network_patches.places import grid_of

MIDDLE = ("middle", 0)
#: attention that a token gets on average: above it the model is busy there (arXiv:2210.00939, section 4.2)
BUSY = 1.0
BLUR_RADIUS = 4

#: what the running step's unconditional rows attended to, and the latent's size there; a lane has a context of its own
_seen: ContextVar[tuple[Tensor, tuple[int, ...]] | None] = ContextVar("self_attention_seen", default=None)


def only_values(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
    """Attention whose map is the identity: each token attends to itself."""
    return v


@dataclass(frozen=True)
class PerturbedAttention:
    """Away from what the model predicts when the middle's self-attention is the identity: D + scale (c - perturbed)."""

    scale: float

    def __call__(self, args: dict[str, Any]) -> Tensor:
        denoised: Tensor = args["denoised"]
        if self.scale == 0.0:
            return denoised
        options = copy_nested_dicts(args["model_options"])
        replaced = options.setdefault("transformer_options", {}).setdefault("patches_replace", {}).setdefault("attn1", {})
        replaced[MIDDLE] = only_values
        (perturbed,) = calc_cond_batch(args["model"], [args["cond"]], args["input"], args["sigma"], options)
        return denoised + (args["cond_denoised"] - perturbed) * self.scale


@dataclass(frozen=True)
class SelfAttentionGuidance:
    """Away from what the model predicts when the places that it attends to are blurred."""

    scale: float
    sigma: float

    def attend(self, q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        """An attn1 replacement: plain attention, whose map for the unconditional rows is kept.

        q, k, v  (b, l, h d). Kept: (b', height, width) of the layer, what its tokens are attended with, averaged over heads
        """
        heads, grid = extra["n_heads"], grid_of(q.shape[1], extra)
        q_bhld, k_bhld, v_bhld = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        scores = (q_bhld.float() @ k_bhld.float().transpose(-1, -2)) * q_bhld.shape[-1] ** -0.5
        map_bhll = scores.softmax(dim=-1)
        sides = extra["cond_or_uncond"]
        if grid is not None and 1 in sides:
            rows = map_bhll.mean(dim=1).sum(dim=1).chunk(len(sides))[sides.index(1)]
            _seen.set((rows.reshape(-1, grid[0], grid[1]), tuple(extra["original_shape"][-2:])))
        return (map_bhll.to(v.dtype) @ v_bhld).transpose(1, 2).flatten(2)

    def __call__(self, args: dict[str, Any]) -> Tensor:
        """D + scale (blurred - its prediction), where the blurred estimate is noised as x is. Equation 14 of the paper."""
        denoised: Tensor = args["denoised"]
        seen, x, uncond = _seen.get(), args["input"], args["uncond_denoised"]
        _seen.set(None)
        if self.scale == 0.0 or seen is None or len(seen[0]) != len(x) or seen[1] != tuple(x.shape[-2:]):
            return denoised  # nothing was seen, or a part of the picture only
        blurred = blur_where(seen[0] > BUSY, uncond, self.sigma)
        try:
            (prediction,) = calc_cond_batch(args["model"], [args["uncond"]], x + (blurred - uncond), args["sigma"], args["model_options"])
        finally:
            _seen.set(None)
        return denoised + (blurred - prediction) * self.scale


def blur_where(busy: Tensor, x0: Tensor, sigma: float) -> Tensor:
    """x0 (b, c, height, width), blurred where `busy` (b, h, w), stretched to it, is true."""
    mask = F.interpolate(busy[:, None].to(x0.dtype), size=x0.shape[-2:], mode="nearest")
    return gaussian_blur(x0, sigma) * mask + x0 * (1.0 - mask)


def gaussian_blur(x: Tensor, sigma: float) -> Tensor:
    """A Gaussian of standard deviation `sigma` cells, cut at BLUR_RADIUS or at the picture's size, mirrored at the border."""
    if sigma <= 0.0:
        return x
    for axis in (-2, -1):
        radius = min(BLUR_RADIUS, x.shape[axis] - 1)
        steps = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
        weights = torch.exp(-0.5 * (steps / sigma) ** 2)
        weights = (weights / weights.sum()).reshape((1, 1, -1, 1) if axis == -2 else (1, 1, 1, -1))
        pad = (0, 0, radius, radius) if axis == -2 else (radius, radius, 0, 0)
        flat = F.pad(x.flatten(0, 1)[:, None], pad, mode="reflect")
        x = F.conv2d(flat, weights).reshape(x.shape)
    return x
