"""CLIP's picture side in the key layout of the Hugging Face files. Radford et al. 2021, arXiv:2103.00020, section 2.4.

Legend: b batch, l places (one for the whole picture, then one for each patch), c channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import comfy.ops
from comfy.text_encoders.clip_text import Layer

ops = comfy.ops.disable_weight_init


@dataclass(frozen=True)
class ClipVisionConfig:
    """Sizes of one network. image_size, patch_size: sides in pixels."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    hidden_act: str
    image_size: int
    patch_size: int
    projection_dim: int

    def build(self) -> nn.Module:
        """The network, on torch's current device."""
        return ClipVisionModel(self)


class _Embeddings(nn.Module):
    def __init__(self, config: ClipVisionConfig, operations: Any) -> None:
        super().__init__()
        width, places = config.hidden_size, (config.image_size // config.patch_size) ** 2 + 1
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.patch_embedding = operations.Conv2d(3, width, config.patch_size, stride=config.patch_size, bias=False)
        self.position_embedding = operations.Embedding(places, width)

    def forward(self, pixels: Tensor) -> Tensor:
        """(b, 3, image_size, image_size) -> (b, l, c)"""
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        whole = self.class_embedding.to(patches).expand(len(patches), 1, -1)
        return torch.cat([whole, patches], dim=1) + self.position_embedding.weight.to(patches)


class _Encoder(nn.Module):
    def __init__(self, config: ClipVisionConfig, operations: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config, operations) for _ in range(config.num_hidden_layers))


class _VisionModel(nn.Module):
    def __init__(self, config: ClipVisionConfig, operations: Any) -> None:
        super().__init__()
        self.embeddings = _Embeddings(config, operations)
        self.pre_layrnorm = operations.LayerNorm(config.hidden_size)  # spelt so in the files
        self.encoder = _Encoder(config, operations)
        self.post_layernorm = operations.LayerNorm(config.hidden_size)


@dataclass(frozen=True)
class VisionStates:
    """last and penultimate (b, l, c): what the last two layers gave; embeds (b, p): the picture as a whole, projected."""

    last: Tensor
    penultimate: Tensor
    embeds: Tensor


class ClipVisionModel(nn.Module):
    """Pictures -> states."""

    def __init__(self, config: ClipVisionConfig, operations: Any = ops) -> None:
        super().__init__()
        self.config = config
        self.vision_model = _VisionModel(config, operations)
        self.visual_projection = operations.Linear(config.hidden_size, config.projection_dim, bias=False)

    def forward(self, pixels: Tensor) -> VisionStates:
        """(b, 3, image_size, image_size), normalised as CLIP wants it."""
        x = self.vision_model.pre_layrnorm(self.vision_model.embeddings(pixels))
        before = x
        for layer in self.vision_model.encoder.layers:
            before, x = x, layer(x, None)
        return VisionStates(x, before, self.visual_projection(self.vision_model.post_layernorm(x[:, 0])))
