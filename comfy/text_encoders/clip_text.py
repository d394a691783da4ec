"""The CLIP text transformer in the key layout of the Hugging Face files. Radford et al. 2021, arXiv:2103.00020, section 2.4.

Legend: b batch, l tokens, c channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import comfy.ops
from comfy.ldm.modules.attention import optimized_attention

ops = comfy.ops.disable_weight_init


def quick_gelu(x: Tensor) -> Tensor:
    """x·sigmoid(1.702 x): the GELU that OpenAI's CLIP was trained with."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


@dataclass(frozen=True)
class ClipTextConfig:
    """Sizes of one CLIP text transformer. `end_token` is the id whose first place gives the pooled state."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    hidden_act: str = "quick_gelu"
    max_position_embeddings: int = 77
    vocab_size: int = 49408
    projection_dim: int | None = None
    end_token: int = 49407


class _Attention(nn.Module):
    def __init__(self, config: Any, operations: Any) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.q_proj = operations.Linear(width, width)
        self.k_proj = operations.Linear(width, width)
        self.v_proj = operations.Linear(width, width)
        self.out_proj = operations.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.out_proj(optimized_attention(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.heads, mask=mask))


class _Mlp(nn.Module):
    def __init__(self, config: Any, operations: Any) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.hidden_act]
        self.fc1 = operations.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = operations.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class Layer(nn.Module):
    """Attention and two linear layers, each on a LayerNorm, each added to its input. Both sides of CLIP consist of it.

    config  any with hidden_size, intermediate_size, num_attention_heads and hidden_act
    """

    def __init__(self, config: Any, operations: Any) -> None:
        super().__init__()
        self.layer_norm1 = operations.LayerNorm(config.hidden_size)
        self.self_attn = _Attention(config, operations)
        self.layer_norm2 = operations.LayerNorm(config.hidden_size)
        self.mlp = _Mlp(config, operations)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (b, l, c), mask (l, l) added to the scores -> like x"""
        x = x + self.self_attn(self.layer_norm1(x), mask)
        return x + self.mlp(self.layer_norm2(x))


class _Embeddings(nn.Module):
    def __init__(self, config: ClipTextConfig, operations: Any) -> None:
        super().__init__()
        self.token_embedding = operations.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = operations.Embedding(config.max_position_embeddings, config.hidden_size)


class _Encoder(nn.Module):
    def __init__(self, config: ClipTextConfig, operations: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config, operations) for _ in range(config.num_hidden_layers))


class _TextModel(nn.Module):
    def __init__(self, config: ClipTextConfig, operations: Any) -> None:
        super().__init__()
        self.embeddings = _Embeddings(config, operations)
        self.encoder = _Encoder(config, operations)
        self.final_layer_norm = operations.LayerNorm(config.hidden_size)


@dataclass(frozen=True)
class ClipTextOutput:
    """hidden (b, l, c) of the layer asked for; pooled (b, c): the final-norm state at the first end token of each row."""

    hidden: Tensor
    pooled: Tensor


class ClipTextModel(nn.Module):
    """Token vectors -> hidden states. `text_projection` exists when the config has a projection_dim."""

    def __init__(self, config: ClipTextConfig, operations: Any = ops) -> None:
        super().__init__()
        self.config = config
        self.text_model = _TextModel(config, operations)
        self.text_projection: nn.Module | None = None
        if config.projection_dim is not None:
            self.text_projection = operations.Linear(config.hidden_size, config.projection_dim, bias=False)

    def get_input_embeddings(self) -> nn.Module:
        """The table of token vectors."""
        return self.text_model.embeddings.token_embedding

    def embed(self, ids_bl: Tensor) -> Tensor:
        """(b, l) token ids -> (b, l, c) token vectors, without positions"""
        return self.text_model.embeddings.token_embedding(ids_bl)

    def forward(self, embeds_blc: Tensor, pool_at_b: Tensor, layer: int | None = None, norm_layer: bool = True) -> ClipTextOutput:
        """Run the transformer, each token seeing itself and those before it.

        embeds_blc  token vectors, textual-inversion rows included; at most max_position_embeddings of them
        pool_at_b   (b,) place of each row's first end token
        layer       whose output `hidden` is: -1 the last, -2 the one before…; None, or one that is not there: the last,
                    always with the final norm
        norm_layer  apply the final norm to that output too
        """
        length, count = embeds_blc.shape[1], len(self.text_model.encoder.layers)
        if length > self.config.max_position_embeddings:
            raise ValueError(f"{length} tokens are more than the {self.config.max_position_embeddings} of this encoder")
        positions = torch.arange(length, device=embeds_blc.device)
        x = embeds_blc + self.text_model.embeddings.position_embedding(positions)
        mask = torch.full((length, length), float("-inf"), device=x.device, dtype=x.dtype).triu_(1)
        wanted = count - 1 if layer is None else layer if layer >= 0 else count + layer
        middle: Tensor | None = None
        for i, block in enumerate(self.text_model.encoder.layers):
            x = block(x, mask)
            if i == wanted:
                middle = x
        last = self.text_model.final_layer_norm(x)
        if middle is None or layer is None:
            hidden = last
        else:
            hidden = self.text_model.final_layer_norm(middle) if norm_layer else middle
        return ClipTextOutput(hidden, last[torch.arange(last.shape[0], device=x.device), pool_at_b])
