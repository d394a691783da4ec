"""Make an SD1.x checkpoint with random weights: `python -m tests.make_checkpoint PATH [--full] [--seed N]`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from comfy.models.random_checkpoint import full_sizes, small_sizes, write_checkpoint


def make_sd1_checkpoint(
    path: Path | str,
    *,
    width: int = 32,
    channel_mult: tuple[int, ...] = (1, 2),
    context: int = 64,
    vae_ch: int = 32,
    clip_layers: int = 2,
    in_channels: int = 4,
    seed: int = 0,
    dtype: torch.dtype = torch.float16,
    full: bool = False,
) -> Path:
    """Write a checkpoint with the true key layout; `full`: with SD1.5's true shapes as well (2.1 GB)."""
    small = small_sizes(width, channel_mult, context, vae_ch, clip_layers, in_channels)
    write_checkpoint(path, full_sizes(in_channels) if full else small, seed, dtype)
    return Path(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    make_sd1_checkpoint(given.path, full=given.full, seed=given.seed)
