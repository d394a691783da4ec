"""Attention's weights times a factor, for experiments: plain multiplication, weights and biases alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy.nodes.v3 import io

CATEGORY = "_for_testing/attention_experiments"
#: layer of the text encoders -> input of the node
CLIP_LAYERS = {"self_attn.q_proj": "q", "self_attn.k_proj": "k", "self_attn.v_proj": "v", "self_attn.out_proj": "out"}


def multiplied(handle: Any, factors: Mapping[str, float]) -> Any:
    """A clone of a MODEL or CLIP in which every weight of a layer whose name ends as a key says is multiplied.

    factors  ending of a layer's name, such as `attn1.to_q` -> factor of its weight and bias
    """
    changed = handle.clone()
    for key in handle.get_key_patches():
        layer = key.rpartition(".")[0]
        for ending, factor in factors.items():
            if layer.endswith(ending):
                changed.add_patches({key: (None,)}, 0.0, factor)
    return changed


def _schema(node_id: str, handle: Any, output: Any, names: tuple[str, ...] = ("q", "k", "v", "out")) -> io.Schema:
    factors = [io.Float.Input(name, default=1.0, min=0.0, max=10.0, step=0.01) for name in names]
    return io.Schema(node_id=node_id, category=CATEGORY, is_experimental=True, inputs=[handle, *factors], outputs=[output])


class UNetSelfAttentionMultiply(io.ComfyNode):
    """Self-attention of a UNet."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("UNetSelfAttentionMultiply", io.Model.Input("model"), io.Model.Output())

    @classmethod
    def execute(cls, model: Any, q: float, k: float, v: float, out: float) -> io.NodeOutput:
        return io.NodeOutput(multiplied(model, {"attn1.to_q": q, "attn1.to_k": k, "attn1.to_v": v, "attn1.to_out.0": out}))


class UNetCrossAttentionMultiply(io.ComfyNode):
    """A UNet's attention to the prompt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("UNetCrossAttentionMultiply", io.Model.Input("model"), io.Model.Output())

    @classmethod
    def execute(cls, model: Any, q: float, k: float, v: float, out: float) -> io.NodeOutput:
        return io.NodeOutput(multiplied(model, {"attn2.to_q": q, "attn2.to_k": k, "attn2.to_v": v, "attn2.to_out.0": out}))


class CLIPAttentionMultiply(io.ComfyNode):
    """Attention of the text encoders."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("CLIPAttentionMultiply", io.Clip.Input("clip"), io.Clip.Output())

    @classmethod
    def execute(cls, clip: Any, q: float, k: float, v: float, out: float) -> io.NodeOutput:
        given = {"q": q, "k": k, "v": v, "out": out}
        return io.NodeOutput(multiplied(clip, {layer: given[name] for layer, name in CLIP_LAYERS.items()}))


NODES: list[type[io.ComfyNode]] = [UNetSelfAttentionMultiply, UNetCrossAttentionMultiply, CLIPAttentionMultiply]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
