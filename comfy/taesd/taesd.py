"""The small autoencoder as custom nodes make it from two files. What the server itself uses: comfy/models/tiny.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from comfy.compat.weight_files import read_tensors
from comfy.ldm.tiny import tiny_decoder, tiny_encoder

#: channels inside the published files
CH = 64


class TAESD(nn.Module):
    """Encoder and decoder; `decode` and `encode` use pictures in -1..1 and latents of `vae_scale` and `vae_shift`."""

    def __init__(self, encoder_path: Any = None, decoder_path: Any = None, latent_channels: int = 4) -> None:
        """The paths are optional; without one that half has no values yet. Raises WeightFileInvalid and RuntimeError."""
        super().__init__()
        self.taesd_encoder = tiny_encoder(latent_channels, CH)
        self.taesd_decoder = tiny_decoder(latent_channels, CH)
        self.vae_scale = nn.Parameter(torch.tensor(1.0))
        self.vae_shift = nn.Parameter(torch.tensor(0.0))
        for network, path in ((self.taesd_encoder, encoder_path), (self.taesd_decoder, decoder_path)):
            if path is not None:
                network.load_state_dict(read_tensors(Path(path))[0])

    def decode(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, 3, 8 h, 8 w), about -1..1"""
        return self.taesd_decoder((x - self.vae_shift) * self.vae_scale).sub(0.5).mul(2)

    def encode(self, x: Tensor) -> Tensor:
        """(b, 3, 8 h, 8 w) in -1..1 -> (b, c, h, w)"""
        return self.taesd_encoder(x * 0.5 + 0.5) / self.vae_scale + self.vae_shift
