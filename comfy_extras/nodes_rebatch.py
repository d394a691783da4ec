"""Lists of batches in batches of another size (goldens README, section C, `batch_index_nodes`)."""

from __future__ import annotations

import torch

from comfy.nodes.conventions import Latent
from comfy.nodes.v3 import io
from comfy.pixels.batch import rebatch_images, repeat_to_batch_size


def _singles(latent: Latent, first_number: int) -> list[Latent]:
    """The items of one batch, each with its mask (at picture size) and noise number; numbers count on over batches."""
    x = latent["samples"]
    batch = x.shape[0]
    mask = latent.get("noise_mask")
    if mask is None:
        mask = torch.ones((batch, 1, x.shape[-2] * 8, x.shape[-1] * 8), device="cpu")
    mask = repeat_to_batch_size(mask.reshape((-1, 1, *mask.shape[-2:])), batch)
    numbers = latent.get("batch_index") or range(first_number, first_number + batch)
    return [
        {"samples": x[i : i + 1], "noise_mask": mask[i : i + 1], "batch_index": [numbers[i]], "masked": "noise_mask" in latent}
        for i in range(batch)
    ]


def _fits(item: Latent, other: Latent) -> bool:
    return item["samples"].shape == other["samples"].shape and item["noise_mask"].shape == other["noise_mask"].shape


def _joined(items: list[Latent]) -> Latent:
    joined: Latent = {"samples": torch.cat([item["samples"] for item in items])}
    if any(item["masked"] for item in items):
        joined["noise_mask"] = torch.cat([item["noise_mask"] for item in items])
    joined["batch_index"] = [number for item in items for number in item["batch_index"]]
    return joined


def rebatch_latents(latents: list[Latent], batch_size: int) -> list[Latent]:
    """All items, in order, in batches of at most `batch_size`; items of different sizes never share a batch."""
    items: list[Latent] = []
    for latent in latents:
        items += _singles(latent, len(items))
    batches: list[list[Latent]] = []
    for item in items:
        if batches and len(batches[-1]) < batch_size and _fits(item, batches[-1][0]):
            batches[-1].append(item)
        else:
            batches.append([item])
    return [_joined(batch) for batch in batches]


class RebatchLatents(io.ComfyNode):
    """Latents in batches of another size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RebatchLatents",
            display_name="Rebatch Latents",
            category="latent/batch",
            is_input_list=True,
            inputs=[io.Latent.Input("latents"), io.Int.Input("batch_size", default=1, min=1, max=4096)],
            outputs=[io.Latent.Output(is_output_list=True)],
        )

    @classmethod
    def execute(cls, latents: list[Latent], batch_size: list[int]) -> io.NodeOutput:
        return io.NodeOutput(rebatch_latents(latents, batch_size[0]))


class RebatchImages(io.ComfyNode):
    """Pictures in batches of another size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RebatchImages",
            display_name="Rebatch Images",
            category="image/batch",
            is_input_list=True,
            inputs=[io.Image.Input("images"), io.Int.Input("batch_size", default=1, min=1, max=4096)],
            outputs=[io.Image.Output(is_output_list=True)],
        )

    @classmethod
    def execute(cls, images: list[torch.Tensor], batch_size: list[int]) -> io.NodeOutput:
        return io.NodeOutput(rebatch_images(images, batch_size[0]))


NODES: list[type[io.ComfyNode]] = [RebatchLatents, RebatchImages]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
