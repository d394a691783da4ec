"""Paints with a checkpoint the way the server does: its loader, handles, samplers and VAE, on one lane's device."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from comfy.device.context import DeviceContext, make_context
from comfy.models.loader import Checkpoint, load_checkpoint
from comfy.models.lora.apply import with_lora as lora
from comfy.models.lora.tensors import file_tensors
from comfy.sampling import ksampler
from comfy.sampling.noise import prepare_noise
from comfy.units import GIB
from comfy.weights.cache import WeightCache
from tools.starter_model.yardstick import CFG, SAMPLER, SCHEDULER, SIDE, STEPS

#: (n, height, width, 3) uint8
Pictures = NDArray[np.uint8]


class Studio:
    """One checkpoint on one device. Use inside `open_studio`.

    Pictures of several seeds are painted as one batch: each starts from the noise that a user with its seed gets. What
    a stochastic sampler draws on the way it draws for the whole batch, from the stream of the first seed.
    """

    def __init__(self, checkpoint: Checkpoint, device: DeviceContext) -> None:
        if checkpoint.clip is None or checkpoint.vae is None:
            raise ValueError("the checkpoint is not whole")
        self.model, self.clip, self.vae, self.device = checkpoint.model, checkpoint.clip, checkpoint.vae, device

    def conditioning(self, prompts: Sequence[str], **options: Any) -> list[list[Any]]:
        """The prompts, one for each picture, as one entry of a CONDITIONING; equal ones are encoded once."""
        encoded = {text: self.clip.encode(text) for text in dict.fromkeys(prompts)}
        return [[torch.cat([encoded[text] for text in prompts]), options]]

    def noise(self, seeds: Sequence[int], latent: Tensor) -> Tensor:
        """(n, 4, h, w): each seed's own noise for a latent of its own."""
        return torch.cat([prepare_noise(latent[:1], seed) for seed in seeds])

    def sample(
        self,
        positive: list[list[Any]],
        seeds: Sequence[int],
        *,
        negative: list[list[Any]] | None = None,
        model: Any = None,
        steps: int = STEPS,
        cfg: float = CFG,
        sampler: str = SAMPLER,
        scheduler: str = SCHEDULER,
        denoise: float = 1.0,
        latent: Tensor | None = None,
        mask: Tensor | None = None,
        size: tuple[int, int] = (SIDE, SIDE),
    ) -> Tensor:
        """(n, 4, h, w): a latent for each seed. `latent` (1 or n, 4, h, w) to start from, `mask` as in SetLatentNoiseMask."""
        start = torch.zeros((1, 4, size[0] // 8, size[1] // 8)) if latent is None else latent
        start = start.expand(len(seeds), -1, -1, -1).clone()
        return ksampler.sample(
            self.model if model is None else model,
            self.noise(seeds, start),
            steps,
            cfg,
            sampler,
            scheduler,
            positive,
            negative or self.conditioning([""]),
            start,
            denoise=denoise,
            noise_mask=mask,
            disable_pbar=True,
            seed=seeds[0],
        )

    def paint(self, prompts: Sequence[str], seeds: Sequence[int], negative: str = "", **options: Any) -> Pictures:
        """One picture for each prompt and seed."""
        latents = self.sample(self.conditioning(prompts), seeds, negative=self.conditioning([negative]), **options)
        return self.decode(latents)

    def with_lora(self, path: str | os.PathLike[str], strength: float) -> Any:
        """The MODEL with a LoRA file added at `strength`."""
        return lora(self.model, None, file_tensors(os.fspath(path)), strength, 0.0)[0]

    def decode(self, latents: Tensor) -> Pictures:
        """Latents -> pictures, rounded as they are saved."""
        return to_bytes(self.vae.decode(latents))

    def encode(self, picture: NDArray[np.uint8]) -> Tensor:
        """(height, width, 3) -> (1, 4, h, w)"""
        return self.vae.encode(torch.from_numpy(picture).float()[None] / 255)


def to_bytes(pictures: Tensor) -> Pictures:
    """(n, height, width, 3) in 0..1 -> uint8"""
    array: Pictures = np.clip(np.rint(pictures.numpy() * 255.0), 0, 255).astype(np.uint8)
    return array


@contextmanager
def open_studio(path: str | os.PathLike[str], device: torch.device | None = None) -> Iterator[Studio]:
    """A studio for the checkpoint `path` on a GPU, or on the CPU when there is none."""
    chosen = device or torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    lane = make_context(0, chosen, WeightCache(GIB), 4 * GIB)
    with lane.activate():
        yield Studio(load_checkpoint(path, embedding_folders=()), lane)
