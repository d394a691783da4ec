"""Joins UNet, text encoder and VAE into one checkpoint: `python -m tools.starter_model.merge FOLDER CHECKPOINT`."""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors.torch import load_file, save_file

from tools.starter_model.export import TEXT_FILE, UNET_FILE, VAE_FILE

#: the whole checkpoint may have this many bytes
MOST_BYTES = 24_000_000


def merge(folder: Path, checkpoint: Path) -> None:
    """Write `checkpoint` from the three parts in `folder`. Raises ValueError when it gets too large."""
    tensors = {name: tensor for part in (UNET_FILE, TEXT_FILE, VAE_FILE) for name, tensor in load_file(folder / part).items()}
    facts = {"format": "pt", "modelspec.title": "starter shapes", "modelspec.license": "GPL-3.0-only"}
    facts |= {"modelspec.architecture": "stable-diffusion-v1", "modelspec.description": "a tiny SD1.x-layout model of coloured shapes"}
    nbytes = sum(tensor.nbytes for tensor in tensors.values())
    if nbytes > MOST_BYTES:
        raise ValueError(f"the checkpoint would have {nbytes} bytes, more than {MOST_BYTES}")
    save_file(tensors, checkpoint, facts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("checkpoint", type=Path)
    given = parser.parse_args()
    merge(given.folder, given.checkpoint)
