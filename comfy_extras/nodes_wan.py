"""Nodes of the Wan video family."""

from __future__ import annotations

from comfy.errors import InputUnusable
from comfy.nodes.conventions import Latent, with_samples
from comfy.nodes.v3 import io


class TrimVideoLatent(io.ComfyNode):
    """A video latent without its first frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TrimVideoLatent",
            category="latent/video",
            inputs=[io.Latent.Input("samples"), io.Int.Input("trim_amount", default=0, min=0, max=99999)],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, samples: Latent, trim_amount: int) -> io.NodeOutput:
        x = samples["samples"]
        if x.ndim != 5 or trim_amount >= x.shape[2]:
            raise InputUnusable("Only a latent with more frames than that can be trimmed.", shape=list(x.shape), trim_amount=trim_amount)
        return io.NodeOutput(with_samples(samples, x[:, :, trim_amount:]))


NODES: list[type[io.ComfyNode]] = [TrimVideoLatent]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
