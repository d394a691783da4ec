"""Checkpoints with random weights in the true SD1.x layout: to try a server without a model, to test, to measure.

Their pictures are noise. Written tensor by tensor, so the true size (2.1 GB) needs no more memory than its largest tensor.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch
from torch import Tensor

from comfy.folders import Folders
from comfy.models.component import network_shapes
from comfy.models.family import UNetConfig, VaeConfig
from comfy.text_encoders.clip_text import ClipTextConfig

log = logging.getLogger(__name__)

PLACEHOLDER = "placeholder_noise_sd1.safetensors"
DTYPE_NAMES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.int64: "I64"}
POSITION_IDS = "cond_stage_model.transformer.text_model.embeddings.position_ids"


@dataclass(frozen=True)
class Sizes:
    """What a random SD1 checkpoint is made of."""

    unet: UNetConfig
    clip: ClipTextConfig
    vae: VaeConfig


def full_sizes(in_channels: int = 4) -> Sizes:
    """SD1.5's own."""
    unet = UNetConfig(
        in_channels=in_channels,
        model_channels=320,
        out_channels=4,
        num_res_blocks=(2, 2, 2, 2),
        channel_mult=(1, 2, 4, 4),
        transformer_depth=(1, 1, 1, 1, 1, 1, 0, 0),
        transformer_depth_middle=1,
        transformer_depth_output=(1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0),
        context_dim=768,
        num_heads=8,
    )
    return Sizes(unet, ClipTextConfig(), VaeConfig(128, (1, 2, 4, 4), 2, 4, True))


def small_sizes(
    width: int = 32, channel_mult: tuple[int, ...] = (1, 2), context: int = 64, vae_ch: int = 32, clip_layers: int = 2, in_channels: int = 4
) -> Sizes:
    """The same structure with fewer and narrower levels; widths must be multiples of 32. The VAE still shrinks by 8."""
    levels = len(channel_mult)
    with_attention = [1 if level < levels - 1 else 0 for level in range(levels)]
    unet = UNetConfig(
        in_channels=in_channels,
        model_channels=width,
        out_channels=4,
        num_res_blocks=(1,) * levels,
        channel_mult=channel_mult,
        transformer_depth=tuple(with_attention),
        transformer_depth_middle=1,
        transformer_depth_output=tuple(depth for depth in with_attention for _ in range(2)),
        context_dim=context,
        num_heads=8,
    )
    clip = ClipTextConfig(context, 4 * context, clip_layers, max(context // 64, 1))
    return Sizes(unet, clip, VaeConfig(vae_ch, (1, 1, 2, 2), 1, 4, True))


def layout(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Name in the file -> shape, as in a released SD1 checkpoint."""
    parts: tuple[tuple[str, Any], ...] = (
        ("model.diffusion_model.", sizes.unet),
        ("first_stage_model.", sizes.vae),
        ("cond_stage_model.transformer.", sizes.clip),
    )
    found = {prefix + name: shape for prefix, config in parts for name, shape in network_shapes(config).items()}
    return {**found, POSITION_IDS: (1, sizes.clip.max_position_embeddings)}


def random_tensor(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """A weight of the size that keeps activations near 1; depends on name, shape and seed alone."""
    if name == POSITION_IDS:
        return torch.arange(shape[-1]).expand(shape)
    if len(shape) == 1:
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    generator = torch.Generator("cpu").manual_seed(zlib.crc32(f"{seed}/{name}".encode()))  # 32 bits: it uses no more
    fan_in = 1
    for n in shape[1:]:
        fan_in *= n
    scale = 0.5 if "token_embedding" in name else 0.1 if "position_embedding" in name else fan_in**-0.5
    return torch.randn(shape, generator=generator) * scale


def write_checkpoint(path: str | os.PathLike[str], sizes: Sizes, seed: int = 0, dtype: torch.dtype = torch.float16) -> None:
    """Write a checkpoint of these sizes. It appears under its name when it is whole; one that is there is replaced."""
    write_tensors(path, layout(sizes), seed, dtype)


def write_tensors(
    path: str | os.PathLike[str], shapes: dict[str, tuple[int, ...]], seed: int = 0, dtype: torch.dtype = torch.float16
) -> None:
    """Write a file with random tensors of these names and shapes, likewise."""
    part = f"{os.fspath(path)}.{os.getpid()}.part"
    try:
        with open(part, "wb") as file:
            _write(file, shapes, seed, dtype)
        os.replace(part, path)
    finally:
        if os.path.exists(part):
            os.unlink(part)


def ensure_placeholder(folders: Folders) -> str | None:
    """Make PLACEHOLDER when the server has no checkpoint at all. Returns its path, or None when nothing was made.

    One that an earlier start made goes as soon as there is a real one: nobody should choose noise from a list.
    A folder that cannot be written is a warning: a server without a checkpoint is still a server.
    """
    names = folders.filename_list("checkpoints")
    folder = folders.models.folders("checkpoints")[0]
    path = os.path.join(folder, PLACEHOLDER)
    if PLACEHOLDER in names and len(names) > 1 and os.path.exists(path):
        with contextlib.suppress(OSError):
            os.unlink(path)
            log.info("removed %s: there is a real checkpoint now", path)
    if names:
        return None
    try:
        os.makedirs(folder, exist_ok=True)
        write_checkpoint(path, small_sizes())
    except OSError as error:
        log.warning("there is no checkpoint, and %s cannot be made: %s", path, error.strerror)
        return None
    log.info("there is no checkpoint: made %s, with random weights; its pictures are noise", path)
    return path


def _write(file: BinaryIO, shapes: dict[str, tuple[int, ...]], seed: int, dtype: torch.dtype) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt", "weights": "random"}}
    offset = 0
    for name, shape, kind in _typed(shapes, dtype):
        count = kind.itemsize
        for n in shape:
            count *= n
        header[name] = {"dtype": DTYPE_NAMES[kind], "shape": list(shape), "data_offsets": [offset, offset + count]}
        offset += count
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name, shape, kind in _typed(shapes, dtype):
        tensor = random_tensor(name, shape, seed).to(kind).contiguous()
        file.write(tensor.view(-1).view(torch.uint8).numpy().data)


def _typed(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype) -> Iterator[tuple[str, tuple[int, ...], torch.dtype]]:
    """Wider types first, so that every tensor starts at a multiple of its own item size."""
    yield from ((name, shape, torch.int64) for name, shape in shapes.items() if name == POSITION_IDS)
    yield from ((name, shape, dtype) for name, shape in shapes.items() if name != POSITION_IDS)
