"""Modules of a UNet in diffusers' layout -> modules of the released checkpoints. Contract: models.md sections 4 and 8.

Names here are of modules: `down_blocks.0.resnets.0.conv1` <-> `input_blocks.1.0.in_layers.2`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from comfy.models.family import UNetConfig

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_TRANSFORMER_ENDS = ("norm", "proj_in", "proj_out")
_TRANSFORMER_BLOCK = (
    "norm1",
    "norm2",
    "norm3",
    *(f"{attention}.{part}" for attention in ("attn1", "attn2") for part in ("to_q", "to_k", "to_v", "to_out.0")),
    "ff.net.0.proj",
    "ff.net.2",
)
_REST = (
    ("conv_in", "input_blocks.0.0"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("class_embedding.linear_1", "label_emb.0.0"),
    ("class_embedding.linear_2", "label_emb.0.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
)


def unet_modules(config: UNetConfig) -> list[tuple[str, str]]:
    """(diffusers' module, the checkpoint's) for every place where a UNet of this shape may have one.

    More than it has: shortcuts of blocks that keep their width, samplers of the last level and the vector embedding are
    always named, since files of adapters name them too.
    """
    return [*_REST, *_down(config), *_middle(config), *_up(config)]


def unet_tensors(config: UNetConfig, names: Mapping[str, object]) -> dict[str, str]:
    """Each tensor name in diffusers' layout that is one of `names` -> its name in a checkpoint."""
    found = {}
    for theirs, ours in unet_modules(config):
        for ending in (".weight", ".bias"):
            if theirs + ending in names:
                found[theirs + ending] = ours + ending
    return found


def _down(config: UNetConfig) -> Iterator[tuple[str, str]]:
    index, depths = 1, list(config.transformer_depth)
    for level, count in enumerate(config.num_res_blocks):
        for j in range(count):
            yield from _resnet(f"down_blocks.{level}.resnets.{j}", f"input_blocks.{index}.0")
            yield from _transformer(f"down_blocks.{level}.attentions.{j}", f"input_blocks.{index}.1", depths.pop(0))
            index += 1
        yield f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{index}.0.op"
        index += 1


def _middle(config: UNetConfig) -> Iterator[tuple[str, str]]:
    depth = config.transformer_depth_middle
    if depth >= -1:
        yield from _resnet("mid_block.resnets.0", "middle_block.0")
    if depth >= 0:
        yield from _transformer("mid_block.attentions.0", "middle_block.1", depth)
        yield from _resnet("mid_block.resnets.1", "middle_block.2")


def _up(config: UNetConfig) -> Iterator[tuple[str, str]]:
    index, depths = 0, list(config.transformer_depth_output)  # the last one comes first on the way up
    for block, count in enumerate(reversed(config.num_res_blocks)):
        depth = 0
        for j in range(count + 1):
            depth = depths.pop()
            yield from _resnet(f"up_blocks.{block}.resnets.{j}", f"output_blocks.{index}.0")
            yield from _transformer(f"up_blocks.{block}.attentions.{j}", f"output_blocks.{index}.1", depth)
            index += 1
        yield f"up_blocks.{block}.upsamplers.0.conv", f"output_blocks.{index - 1}.{2 if depth else 1}.conv"


def _resnet(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    for part, name in _RESNET.items():
        yield f"{theirs}.{part}", f"{ours}.{name}"


def _transformer(theirs: str, ours: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth <= 0:
        return
    for part in _TRANSFORMER_ENDS:
        yield f"{theirs}.{part}", f"{ours}.{part}"
    for i in range(depth):
        for part in _TRANSFORMER_BLOCK:
            yield f"{theirs}.transformer_blocks.{i}.{part}", f"{ours}.transformer_blocks.{i}.{part}"
