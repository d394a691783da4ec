"""How the names and shapes of a file's tensors become those of a network. Contract: models.md sections 7 to 9.

A layout is "" (the released checkpoints'), "diffusers" (UNet or VAE) or "openclip" (text encoders). Nothing is copied:
each run-time tensor is a whole tensor of the file, some rows of one, or one read transposed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from comfy.models.diffusers_names import vae_names
from comfy.models.diffusers_unet import unet_tensors
from comfy.models.family import UNetConfig

Shape = tuple[int, ...]
OPENCLIP_MARK = "transformer.resblocks.0.ln_1.weight"
_BLOCK = re.compile(r"^transformer\.resblocks\.(\d+)\.(.+)$")
_BLOCK_PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_OUTSIDE = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}


@dataclass(frozen=True)
class Place:
    """Where a run-time tensor lies: `rows` (first, end) of the file's tensor `source`, read transposed or not."""

    source: str
    rows: tuple[int, int] | None = None
    transpose: bool = False

    def shape(self, stored: Shape) -> Shape:
        """The run-time shape when the file's tensor has the shape `stored`."""
        if self.rows is not None:
            stored = (self.rows[1] - self.rows[0], *stored[1:])
        return stored[::-1] if self.transpose else stored


def places(layout: str, shapes: Mapping[str, Shape], config: object = None) -> dict[str, Place]:
    """Run-time name -> its place among tensors of these names and shapes, prefixes off, in the file's order.

    config  of the network, needed for UNets in diffusers' layout
    """
    if layout == "openclip":
        return dict(_openclip(shapes))
    if layout == "diffusers":
        names = unet_tensors(config, shapes) if isinstance(config, UNetConfig) else vae_names(shapes)
        return {ours: Place(theirs) for theirs, ours in names.items()}
    return {name: Place(name) for name in shapes}


def run_time_shapes(layout: str, shapes: Mapping[str, Shape], config: object = None) -> dict[str, Shape]:
    """Run-time name -> run-time shape."""
    return {name: place.shape(shapes[place.source]) for name, place in places(layout, shapes, config).items()}


def _openclip(shapes: Mapping[str, Shape]) -> Iterator[tuple[str, Place]]:
    """CLIP's text side as OpenCLIP names it: q, k and v in one tensor, the projection a plain matrix used from the right."""
    for name, shape in shapes.items():
        block = _BLOCK.match(name)
        if block is not None:
            yield from _openclip_block(f"text_model.encoder.layers.{block[1]}.", block[2], name, shape)
        elif name in ("text_projection", "text_projection.weight"):
            yield "text_projection.weight", Place(name, transpose=name == "text_projection" and len(shape) == 2)
        elif name in _OUTSIDE:
            yield _OUTSIDE[name], Place(name)


def _openclip_block(start: str, part: str, name: str, shape: Shape) -> Iterator[tuple[str, Place]]:
    head, _, ending = part.rpartition(".")
    if part in ("attn.in_proj_weight", "attn.in_proj_bias") and shape:
        third = shape[0] // 3
        for i, letter in enumerate("qkv"):
            yield f"{start}self_attn.{letter}_proj.{part.removeprefix('attn.in_proj_')}", Place(name, (i * third, (i + 1) * third))
    elif head in _BLOCK_PARTS:
        yield f"{start}{_BLOCK_PARTS[head]}.{ending}", Place(name)
