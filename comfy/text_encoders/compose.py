"""The conditioning of families with several text encoders, out of each encoder's own. Contract: goldens README, section E.2."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Encoded = tuple[Tensor, Tensor | None]  #: tokens (1, l, c), pooled (1, p)


def joined_channels(left: Tensor, right: Tensor) -> Tensor:
    """(1, l, a), (1, m, b) -> (1, min(l, m), a + b)"""
    length = min(left.shape[1], right.shape[1])
    return torch.cat([left[:, :length], right[:, :length]], dim=-1)


def sdxl(clip_l: Encoded, clip_g: Encoded) -> Encoded:
    """CLIP-L's and CLIP-G's tokens side by side; CLIP-G's pooled state."""
    return joined_channels(clip_l[0], clip_g[0]), clip_g[1]


def flux(clip_l: Encoded, t5: Encoded) -> Encoded:
    """T5's tokens; CLIP-L's pooled state."""
    return t5[0], clip_l[1]


def sd3(clip_l: Encoded | None, clip_g: Encoded | None, t5: Encoded | None, widths: tuple[int, int, int] = (768, 1280, 4096)) -> Encoded:
    """Both CLIPs' tokens side by side, widened with zeros to T5's width, then T5's tokens; both pooled states.

    A missing encoder gives zeros: (1, 77, its width) and (1, its width). widths are those of L, G and T5.
    """
    width_l, width_g, width = widths
    length = next((part[0].shape[1] for part in (clip_l, clip_g) if part is not None), 77)
    tokens_l = torch.zeros(1, length, width_l) if clip_l is None else clip_l[0]
    tokens_g = torch.zeros(1, length, width_g) if clip_g is None else clip_g[0]
    clip = joined_channels(tokens_l, tokens_g)
    tokens = F.pad(clip, (0, width - clip.shape[-1]))
    if t5 is not None:
        tokens = torch.cat([tokens, t5[0]], dim=1)
    pooled_l = torch.zeros(1, width_l) if clip_l is None or clip_l[1] is None else clip_l[1]
    pooled_g = torch.zeros(1, width_g) if clip_g is None or clip_g[1] is None else clip_g[1]
    return tokens, torch.cat([pooled_l, pooled_g], dim=-1)
