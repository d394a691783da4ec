"""The T5 encoder in the key layout of its published files. Raffel et al. 2019, arXiv:1910.10683, section 2.1; gated
feed-forward: Shazeer 2020, arXiv:2002.05202.

Legend: b batch, l tokens, c channels, h heads, d channels per head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import comfy.ops
from comfy.ldm.modules.attention import optimized_attention

ops = comfy.ops.disable_weight_init
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"), "relu": F.relu}


@dataclass(frozen=True)
class T5Config:
    """Sizes of one T5 encoder. `bias_everywhere`: each layer has a table of relative positions (UMT5), not the first alone."""

    d_model: int = 4096
    d_kv: int = 64
    d_ff: int = 10240
    num_layers: int = 24
    num_heads: int = 64
    vocab_size: int = 32128
    dense_act_fn: str = "gelu_pytorch_tanh"
    is_gated_act: bool = True
    bias_everywhere: bool = False
    buckets: int = 32
    max_distance: int = 128


class T5LayerNorm(nn.Module):
    """Root-mean-square norm, computed in float32."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(b, l, c) -> the same"""
        scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight.to(x) * (x * scale.to(x.dtype))


def relative_buckets(length: int, buckets: int, max_distance: int) -> Tensor:
    """(l, l) bucket of key position minus query position: near distances one each, far ones logarithmic, both signs apart."""
    positions = torch.arange(length)
    distance = positions[None, :] - positions[:, None]
    half = buckets // 2
    near = half // 2
    size = distance.abs()
    far = near + (torch.log(size.clamp(min=1).float() / near) / math.log(max_distance / near) * (half - near)).long()
    return (distance > 0).long() * half + torch.where(size < near, size, far.clamp(max=half - 1))


class _SelfAttention(nn.Module):
    def __init__(self, config: T5Config, has_bias: bool, operations: Any) -> None:
        super().__init__()
        inner = config.d_kv * config.num_heads
        self.config = config
        self.q = operations.Linear(config.d_model, inner, bias=False)
        self.k = operations.Linear(config.d_model, inner, bias=False)
        self.v = operations.Linear(config.d_model, inner, bias=False)
        self.o = operations.Linear(inner, config.d_model, bias=False)
        self.relative_attention_bias = operations.Embedding(config.buckets, config.num_heads) if has_bias else None

    def bias(self, length: int) -> Tensor | None:
        """(1, h, l, l), or None when another layer's is to be used."""
        if self.relative_attention_bias is None:
            return None
        table = self.relative_attention_bias.weight
        buckets = relative_buckets(length, self.config.buckets, self.config.max_distance).to(table.device)
        return self.relative_attention_bias(buckets).permute(2, 0, 1)[None].contiguous()

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """T5 does not divide by √d, which the attention function does: the queries make up for it."""
        q = self.q(x) * math.sqrt(self.config.d_kv)
        return self.o(optimized_attention(q, self.k(x), self.v(x), self.config.num_heads, mask=bias.to(q.dtype)))


class _AttentionLayer(nn.Module):
    def __init__(self, config: T5Config, has_bias: bool, operations: Any) -> None:
        super().__init__()
        self.SelfAttention = _SelfAttention(config, has_bias, operations)
        self.layer_norm = T5LayerNorm(config.d_model)


class _GatedDense(nn.Module):
    def __init__(self, config: T5Config, operations: Any) -> None:
        super().__init__()
        self.wi_0 = operations.Linear(config.d_model, config.d_ff, bias=False)
        self.wi_1 = operations.Linear(config.d_model, config.d_ff, bias=False)
        self.wo = operations.Linear(config.d_ff, config.d_model, bias=False)
        self.activation = ACTIVATIONS[config.dense_act_fn]

    def forward(self, x: Tensor) -> Tensor:
        return self.wo(self.activation(self.wi_0(x)) * self.wi_1(x))


class _Dense(nn.Module):
    def __init__(self, config: T5Config, operations: Any) -> None:
        super().__init__()
        self.wi = operations.Linear(config.d_model, config.d_ff, bias=False)
        self.wo = operations.Linear(config.d_ff, config.d_model, bias=False)
        self.activation = ACTIVATIONS[config.dense_act_fn]

    def forward(self, x: Tensor) -> Tensor:
        return self.wo(self.activation(self.wi(x)))


class _DenseLayer(nn.Module):
    def __init__(self, config: T5Config, operations: Any) -> None:
        super().__init__()
        self.DenseReluDense = (_GatedDense if config.is_gated_act else _Dense)(config, operations)
        self.layer_norm = T5LayerNorm(config.d_model)


class _Block(nn.Module):
    def __init__(self, config: T5Config, has_bias: bool, operations: Any) -> None:
        super().__init__()
        self.layer = nn.ModuleList([_AttentionLayer(config, has_bias, operations), _DenseLayer(config, operations)])


class _Stack(nn.Module):
    def __init__(self, config: T5Config, operations: Any) -> None:
        super().__init__()
        self.block = nn.ModuleList(_Block(config, config.bias_everywhere or i == 0, operations) for i in range(config.num_layers))
        self.final_layer_norm = T5LayerNorm(config.d_model)


class T5(nn.Module):
    """Token vectors -> hidden states, each token seeing all."""

    def __init__(self, config: T5Config, operations: Any = ops) -> None:
        super().__init__()
        self.config = config
        self.shared = operations.Embedding(config.vocab_size, config.d_model)
        self.encoder = _Stack(config, operations)

    def get_input_embeddings(self) -> nn.Module:
        """The table of token vectors."""
        return self.shared

    def embed(self, ids_bl: Tensor) -> Tensor:
        """(b, l) token ids -> (b, l, c) token vectors"""
        return self.shared(ids_bl)

    def forward(self, embeds_blc: Tensor, mask_bl: Tensor | None = None) -> Tensor:
        """(b, l, c) -> (b, l, c). `mask_bl` is true where a token may be seen; None: all of them."""
        x, bias = embeds_blc, None
        hidden = None if mask_bl is None else torch.zeros(mask_bl.shape, device=x.device).masked_fill_(~mask_bl, float("-inf"))
        for block in self.encoder.block:
            attend, dense = block.layer  # type: ignore[misc]
            own = attend.SelfAttention.bias(x.shape[1])
            bias = bias if own is None else own
            if bias is None:
                raise ValueError("the first layer has no table of relative positions")
            seen = bias if hidden is None else bias + hidden[:, None, None, :].to(bias.dtype)
            x = x + attend.SelfAttention(attend.layer_norm(x), seen)
            x = x + dense.DenseReluDense(dense.layer_norm(x))
        return self.encoder.final_layer_norm(x)
