"""The starter model's networks: the server's own classes, so their keys are the SD1.x layout by construction."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from comfy.models.component import build_network
from comfy.models.family import UNetConfig, VaeConfig
from comfy.text_encoders.clip_text import ClipTextConfig
from tools.starter_model.tokens import VOCABULARY, compact_table, known_ids

Weights = dict[str, Tensor]

CLIP = ClipTextConfig(hidden_size=64, intermediate_size=256, num_hidden_layers=4, num_attention_heads=1)
UNET = UNetConfig(
    in_channels=4,
    model_channels=64,
    out_channels=4,
    num_res_blocks=(1, 1, 1),
    channel_mult=(1, 2, 2),
    transformer_depth=(1, 1, 1),
    transformer_depth_middle=1,
    transformer_depth_output=(1,) * 6,
    context_dim=CLIP.hidden_size,
    num_heads=8,
)
VAE = VaeConfig(ch=64, ch_mult=(1, 1, 1, 1), num_res_blocks=1, z_channels=4, use_quant=True)
#: SD1's latent scale: the UNet works on this times the VAE's latents
LATENT_SCALE = 0.18215
TOKEN_TABLE = "text_model.embeddings.token_embedding.weight"
#: last layers of residual branches: zero at first, so that each branch begins by adding nothing
_ZERO = (".out_layers.3.weight", ".proj_out.weight", "out.2.weight", ".conv2.weight")


def fresh(network: nn.Module, seed: int, device: torch.device) -> Weights:
    """Trainable first weights, float32, for a network on the meta device; they depend on names, shapes and seed alone."""
    made = {}
    for name, tensor in network.state_dict().items():
        generator = torch.Generator("cpu").manual_seed((seed << 32) ^ zlib.crc32(name.encode()))
        made[name] = _first(name, tuple(tensor.shape), generator).to(device).requires_grad_(True)
    return made


def _first(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if len(shape) == 1:
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    if name.endswith(_ZERO):
        return torch.zeros(shape)
    scale = 0.02 if "position_embedding" in name else 0.5 if name == TOKEN_TABLE else math.prod(shape[1:]) ** -0.5
    return torch.randn(shape, generator=generator) * scale


def on_meta(config: Any) -> nn.Module:
    """A network of this structure without memory: its weights are given at each call."""
    with torch.device("meta"):
        return build_network(config)


class TextNetwork:
    """The text encoder with a small table: one row for each known word. Other ids have a zero vector."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.network = on_meta(CLIP)
        self.weights = fresh(self.network, seed, device)
        table = torch.randn((len(known_ids()), CLIP.hidden_size), generator=torch.Generator("cpu").manual_seed(seed)) * 0.5
        self.weights[TOKEN_TABLE] = table.to(device).requires_grad_(True)
        self._rows = compact_table().to(device)

    def encode(self, weights: Mapping[str, Tensor], ids: Tensor, emphasis: Tensor) -> Tensor:
        """ids and emphasis (b, 77), the last row the empty prompt -> (b - 1, 77, c), weighted as the server weighs."""
        table = torch.cat([torch.zeros_like(weights[TOKEN_TABLE][:1]), weights[TOKEN_TABLE]])
        rows = torch.arange(table.shape[0], device=ids.device)
        embeds = (self._rows[ids.long()][..., None] == rows).to(table.dtype) @ table  # its gradient is a sum in float32
        rest = {name: tensor for name, tensor in weights.items() if name != TOKEN_TABLE}
        first = torch.zeros(ids.shape[0], dtype=torch.int64, device=ids.device)
        hidden = functional_call(self.network, rest, (embeds, first)).hidden
        empty = hidden[-1:]
        return empty + emphasis[:-1, :, None].to(hidden.dtype) * (hidden[:-1] - empty)

    def full(self, weights: Mapping[str, Tensor]) -> Weights:
        """The weights with the whole table of 49408 rows."""
        table = torch.zeros((VOCABULARY, CLIP.hidden_size))
        table[list(known_ids())] = weights[TOKEN_TABLE].detach().float().cpu()
        return {**weights, TOKEN_TABLE: table}


class VaeTraining(nn.Module):
    """The autoencoder with a random draw between its halves, for training."""

    def __init__(self, engine: nn.Module) -> None:
        super().__init__()
        self.engine: Any = engine

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (b, 3, h, w) in -1..1, noise (b, 4, h/8, w/8) -> (picture like x, mean, log variance like the noise)"""
        mean, spread = self.engine.quant_conv(self.engine.encoder(x)).chunk(2, dim=1)
        spread = spread.clamp(-12, 6)
        return self.engine.decode(mean + torch.exp(0.5 * spread) * noise), mean, spread
