"""Attention layers of the SD-family UNet.

Rombach et al. 2022, arXiv:2112.10752, section 3.3; the parameter names are those of its released checkpoints.
Legend: b batch, l tokens of the picture, s tokens of the context, c channels, h heads, d channels per head.
Patches and block addresses: contract, custom-nodes.md section 6 (MODEL object) and models.md section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import comfy.ops

ops = comfy.ops.disable_weight_init


def default(value: Any, otherwise: Any) -> Any:
    """`value`, or when it is None `otherwise` (called, if it is a function)."""
    if value is not None:
        return value
    return otherwise() if callable(otherwise) else otherwise


def get_attn_precision(attn_precision: torch.dtype | None = None, current_dtype: torch.dtype | None = None) -> torch.dtype | None:
    """The dtype that attention is to be computed in, or None for the dtype of its inputs."""
    return None if attn_precision == current_dtype else attn_precision


def attention_pytorch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    mask: Tensor | None = None,
    attn_precision: torch.dtype | None = None,
    skip_reshape: bool = False,
    skip_output_reshape: bool = False,
    **kwargs: Any,
) -> Tensor:
    """softmax(q kᵀ/√d + mask) v. Vaswani et al. 2017, arXiv:1706.03762.

    q, k, v  (b, l, h·d) and (b, s, h·d); with `skip_reshape` (b, h, l, d) and (b, h, s, d)
    mask     boolean (true: attend) or added, (l, s), (b, l, s) or (b, h, l, s)
    attn_precision  the dtype to compute in; the result has q's dtype all the same
    Returns (b, l, h·d), or with `skip_output_reshape` (b, h, l, d).
    """
    if skip_reshape:
        b, _, _, d = q.shape
        q_bhld, k_bhsd, v_bhsd = q, k, v
    else:
        b, _, width = q.shape
        d = width // heads
        q_bhld, k_bhsd, v_bhsd = (t.unflatten(-1, (heads, d)).transpose(1, 2) for t in (q, k, v))
    if mask is not None:
        if mask.dim() == 2:
            mask = mask.unsqueeze(0)
        if mask.dim() == 3:
            mask = mask.unsqueeze(1)
    precision = get_attn_precision(attn_precision, q.dtype)
    if precision is not None:
        q_bhld, k_bhsd, v_bhsd = (t.to(precision) for t in (q_bhld, k_bhsd, v_bhsd))
        if mask is not None and mask.dtype is not torch.bool:
            mask = mask.to(precision)
    out_bhld = F.scaled_dot_product_attention(q_bhld, k_bhsd, v_bhsd, attn_mask=mask).to(q.dtype)
    if skip_output_reshape:
        return out_bhld
    return out_bhld.transpose(1, 2).reshape(b, -1, heads * d)


#: what every network here calls; torch chooses the kernel from shapes and dtypes
optimized_attention = attention_pytorch
optimized_attention_masked = attention_pytorch


class GEGLU(nn.Module):
    """x·gelu(gate), both projected from the input. Shazeer 2020, arXiv:2002.05202."""

    def __init__(self, dim_in: int, dim_out: int, dtype: Any = None, device: Any = None, operations: Any = ops) -> None:
        super().__init__()
        self.proj = operations.Linear(dim_in, dim_out * 2, dtype=dtype, device=device)

    def forward(self, x: Tensor) -> Tensor:
        """(b, l, dim_in) -> (b, l, dim_out)"""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """Two linear layers with a gated or plain GELU between them, `mult` times as wide inside."""

    def __init__(
        self,
        dim: int,
        dim_out: int | None = None,
        mult: int = 4,
        glu: bool = False,
        dropout: float = 0.0,
        dtype: Any = None,
        device: Any = None,
        operations: Any = ops,
    ) -> None:
        super().__init__()
        inner = int(dim * mult)
        first: nn.Module
        if glu:
            first = GEGLU(dim, inner, dtype=dtype, device=device, operations=operations)
        else:
            first = nn.Sequential(operations.Linear(dim, inner, dtype=dtype, device=device), nn.GELU())
        last = operations.Linear(inner, default(dim_out, dim), dtype=dtype, device=device)
        self.net = nn.Sequential(first, nn.Dropout(dropout), last)

    def forward(self, x: Tensor) -> Tensor:
        """(b, l, dim) -> (b, l, dim_out)"""
        return self.net(x)


class CrossAttention(nn.Module):
    """Multi-head attention of the picture's tokens to `context`, or to themselves."""

    def __init__(
        self,
        query_dim: int,
        context_dim: int | None = None,
        heads: int = 8,
        dim_head: int = 64,
        dropout: float = 0.0,
        attn_precision: torch.dtype | None = None,
        dtype: Any = None,
        device: Any = None,
        operations: Any = ops,
    ) -> None:
        super().__init__()
        inner = dim_head * heads
        context_dim = default(context_dim, query_dim)
        self.attn_precision = attn_precision
        self.heads = heads
        self.dim_head = dim_head
        self.to_q = operations.Linear(query_dim, inner, bias=False, dtype=dtype, device=device)
        self.to_k = operations.Linear(context_dim, inner, bias=False, dtype=dtype, device=device)
        self.to_v = operations.Linear(context_dim, inner, bias=False, dtype=dtype, device=device)
        self.to_out = nn.Sequential(operations.Linear(inner, query_dim, dtype=dtype, device=device), nn.Dropout(dropout))

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        value: Tensor | None = None,
        mask: Tensor | None = None,
        transformer_options: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """x (b, l, query_dim), context and value (b, s, context_dim) -> like x. Without `value` it is the context."""
        context = x if context is None else context
        q, k, v = self.to_q(x), self.to_k(context), self.to_v(context if value is None else value)
        return self.to_out(optimized_attention(q, k, v, self.heads, mask=mask, attn_precision=self.attn_precision))


def _replacement(options: Mapping[str, Any], name: str) -> Callable[..., Tensor] | None:
    """The function that a pack set for this block's `name` attention: for this transformer block, else for the whole block."""
    table = options.get("patches_replace", {}).get(name)
    block = options.get("block")
    if not table or block is None:
        return None
    return table.get((block[0], block[1], options.get("block_index"))) or table.get((block[0], block[1]))


class BasicTransformerBlock(nn.Module):
    """Self-attention, attention to the conditioning, feed-forward: each on a LayerNorm, each added to its input."""

    def __init__(
        self,
        dim: int,
        n_heads: int,
        d_head: int,
        dropout: float = 0.0,
        context_dim: int | None = None,
        gated_ff: bool = True,
        disable_self_attn: bool = False,
        attn_precision: torch.dtype | None = None,
        dtype: Any = None,
        device: Any = None,
        operations: Any = ops,
    ) -> None:
        super().__init__()
        place: dict[str, Any] = {"dtype": dtype, "device": device}
        attention: dict[str, Any] = {
            "heads": n_heads,
            "dim_head": d_head,
            "dropout": dropout,
            "attn_precision": attn_precision,
            "operations": operations,
            **place,
        }
        self.n_heads = n_heads
        self.d_head = d_head
        self.attn_precision = attn_precision
        self.disable_self_attn = disable_self_attn
        self.attn1 = CrossAttention(dim, context_dim if disable_self_attn else None, **attention)
        self.ff = FeedForward(dim, glu=gated_ff, dropout=dropout, operations=operations, **place)
        self.attn2 = CrossAttention(dim, context_dim, **attention)
        self.norm1 = operations.LayerNorm(dim, **place)
        self.norm2 = operations.LayerNorm(dim, **place)
        self.norm3 = operations.LayerNorm(dim, **place)

    def forward(self, x: Tensor, context: Tensor | None = None, transformer_options: Mapping[str, Any] | None = None) -> Tensor:
        """x (b, l, c), context (b, s, context_dim) -> (b, l, c).

        Patches see `extra_options`: the transformer options plus n_heads, dim_head, attn_precision.
        """
        options = transformer_options or {}
        extra = {**options, "n_heads": self.n_heads, "dim_head": self.d_head, "attn_precision": self.attn_precision}
        x = x + self._attend("attn1", self.norm1(x), context if self.disable_self_attn else None, extra)
        for patch in options.get("patches", {}).get("middle_patch", ()):
            x = patch(x, extra)
        x = x + self._attend("attn2", self.norm2(x), context, extra)
        return x + self.ff(self.norm3(x))

    def _attend(self, name: str, n: Tensor, context: Tensor | None, extra: dict[str, Any]) -> Tensor:
        """The block's attn1 or attn2 on the normed tokens `n`, with the patches of that name around it."""
        attention: CrossAttention = getattr(self, name)
        patches = extra.get("patches", {})
        value: Tensor | None = None
        if f"{name}_patch" in patches:
            context = n if context is None else context
            value = context
            for patch in patches[f"{name}_patch"]:
                n, context, value = patch(n, context, value, extra)
        replace = _replacement(extra, name)
        if replace is None:
            n = attention(n, context=context, value=value, transformer_options=extra)
        else:
            context = n if context is None else context
            value = context if value is None else value
            n = attention.to_out(replace(attention.to_q(n), attention.to_k(context), attention.to_v(value), extra))
        for patch in patches.get(f"{name}_output_patch", ()):
            n = patch(n, extra)
        return n


class SpatialTransformer(nn.Module):
    """Transformer blocks over the pixels of a feature map, added to it."""

    def __init__(
        self,
        in_channels: int,
        n_heads: int,
        d_head: int,
        depth: int = 1,
        dropout: float = 0.0,
        context_dim: int | list[int | None] | None = None,
        disable_self_attn: bool = False,
        use_linear: bool = False,
        attn_precision: torch.dtype | None = None,
        dtype: Any = None,
        device: Any = None,
        operations: Any = ops,
    ) -> None:
        super().__init__()
        place: dict[str, Any] = {"dtype": dtype, "device": device}
        contexts = context_dim if isinstance(context_dim, list) else [context_dim] * depth
        inner = n_heads * d_head
        self.in_channels = in_channels
        self.use_linear = use_linear
        self.norm = operations.GroupNorm(num_groups=32, num_channels=in_channels, eps=1e-6, affine=True, **place)
        if use_linear:
            self.proj_in = operations.Linear(in_channels, inner, **place)
            self.proj_out = operations.Linear(inner, in_channels, **place)
        else:
            self.proj_in = operations.Conv2d(in_channels, inner, kernel_size=1, **place)
            self.proj_out = operations.Conv2d(inner, in_channels, kernel_size=1, **place)
        self.transformer_blocks = nn.ModuleList(
            BasicTransformerBlock(
                inner,
                n_heads,
                d_head,
                dropout=dropout,
                context_dim=context,
                disable_self_attn=disable_self_attn,
                attn_precision=attn_precision,
                operations=operations,
                **place,
            )
            for context in contexts
        )

    def forward(
        self, x: Tensor, context: Tensor | list[Tensor | None] | None = None, transformer_options: Mapping[str, Any] | None = None
    ) -> Tensor:
        """x (b, c, height, width), context (b, s, context_dim), or a list with one for each transformer block -> like x"""
        height, width = x.shape[-2:]
        contexts = context if isinstance(context, list) else [context] * len(self.transformer_blocks)
        residual = x
        x = self.norm(x)
        if not self.use_linear:
            x = self.proj_in(x)
        tokens_blc = x.flatten(2).transpose(1, 2)
        if self.use_linear:
            tokens_blc = self.proj_in(tokens_blc)
        options = dict(transformer_options or {})
        for i, (block, own_context) in enumerate(zip(self.transformer_blocks, contexts)):
            options["block_index"] = i
            tokens_blc = block(tokens_blc, context=own_context, transformer_options=options)
        if self.use_linear:
            tokens_blc = self.proj_out(tokens_blc)
        x = tokens_blc.transpose(1, 2).unflatten(2, (height, width))
        if not self.use_linear:
            x = self.proj_out(x.contiguous())
        return x + residual
