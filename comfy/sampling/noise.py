"""Noise: every draw comes from a private generator, and every draw of a job is a function of its seed.

The reference seeds the process-wide CPU generator and draws from it; a private generator gives the same numbers
(contract: goldens README C) and no other lane can step in between. Where the reference goes on drawing from the global
stream after the initial noise, `Continued` goes on from the generator that drew it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from comfy.errors import InputUnusable, PackageMissing
from comfy.replaceable import replaceable

#: (sigma, sigma_next) -> a standard normal tensor like x
NoiseSampler = Callable[[Any, Any], Tensor]
_SEED_LIMIT = 2**64


def seeded(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` at the start of the stream of `seed`. Raises InputUnusable for a seed outside -2^63 .. 2^64 - 1."""
    if not -(2**63) <= seed < _SEED_LIMIT:
        raise InputUnusable("A seed must lie below 2^64.", seed=seed)
    return torch.Generator(device=device).manual_seed(seed)


@replaceable("comfy.sample.prepare_noise")
def prepare_noise(latent_image: Tensor, seed: int, noise_inds: Sequence[int] | None = None) -> Tensor:
    """Standard normal noise for a latent, in its shape and dtype, on the CPU.

    With `noise_inds` (the latent's batch_index) item i is the noise_inds[i]-th of the tensors (1, c, ...) that the seed's
    stream gives; equal indices give equal noise. The result carries its generator for `Continued`.
    """
    generator = seeded(seed)
    if noise_inds is None:
        noise = _draw(latent_image.shape, latent_image, generator)
    else:
        one = (1, *latent_image.shape[1:])
        items = [_draw(one, latent_image, generator) for _ in range(max(noise_inds) + 1)]
        noise = torch.cat([items[i] for i in noise_inds], dim=0)
    noise.comfy_generator = generator  # type: ignore[attr-defined]
    return noise


def _draw(shape: Sequence[int], like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, dtype=like.dtype, layout=like.layout, generator=generator, device="cpu")


class Continued:
    """The stream of a seed, after its initial noise: what the reference draws from the global generators while sampling.

    On the CPU that is the stream that drew the initial noise. On another device it is that device's own stream of the
    seed, which the initial noise did not touch.
    """

    def __init__(self, initial: Tensor | None, seed: int | None) -> None:
        """`initial` is the noise tensor as `prepare_noise` gave it; without its generator the draw is repeated and left out."""
        self._generators: dict[torch.device, torch.Generator] = {}
        self._seed = 0 if seed is None else seed
        self._initial = initial

    def randn_like(self, x: Tensor) -> Tensor:
        """A tensor like x, in its memory order: a channels-last tensor is filled channels last."""
        generator = self._generators.get(x.device)
        if generator is None:
            generator = self._generators[x.device] = self._begin(x.device)
        return torch.empty_like(x).normal_(generator=generator)

    def _begin(self, device: torch.device) -> torch.Generator:
        if device.type != "cpu":
            return seeded(self._seed, device)
        drawn = getattr(self._initial, "comfy_generator", None)
        if drawn is not None:
            return drawn.clone_state() if hasattr(drawn, "clone_state") else drawn
        generator = seeded(self._seed)
        if self._initial is not None:
            _draw(self._initial.shape, self._initial, generator)
        return generator


@replaceable("comfy.k_diffusion.sampling.default_noise_sampler")
def default_noise_sampler(x: Tensor, seed: int | None = None) -> NoiseSampler:
    """Consecutive draws from a new generator on x's device with the same seed (contract C: on a CPU the first equals the initial noise)."""
    generator = seeded(seed or 0, x.device)
    return lambda sigma, sigma_next: torch.randn(x.shape, dtype=x.dtype, layout=x.layout, device=x.device, generator=generator)


def float32(number: Any) -> float:
    """`number` (Python or a () tensor) rounded to float32: a path at a time that differs in the last bits is another path."""
    return float(torch.as_tensor(number, dtype=torch.float32))


class BrownianTree:
    """One Brownian motion over [t0, t1] for the whole tensor, its value fixed by the seed and not by the order of questions."""

    def __init__(self, x: Tensor, t0: Any, t1: Any, seed: int | None = None, cpu: bool = False) -> None:
        """x (b, ...) gives shape and device; `cpu` draws the tree on the CPU, so that every device gets the same.

        Raises PackageMissing without torchsde.
        """
        try:
            import torchsde
        except ImportError as error:
            raise PackageMissing(package="torchsde", needed_for="samplers that follow a Brownian path") from error
        t0, t1 = float32(t0), float32(t1)
        self._sign = 1 if t0 < t1 else -1
        low, high = min(t0, t1), max(t0, t1)
        # torchsde keeps times to six digits and warns of a question outside them, the ends' own included
        self._low, self._high = round(low, 6), round(high, 6)
        start = torch.zeros_like(x, device="cpu") if cpu else torch.zeros_like(x)
        self._tree = torchsde.BrownianTree(t0=low, w0=start, t1=high, entropy=0 if seed is None else seed)

    def __call__(self, t0: float, t1: float, like: Tensor) -> Tensor:
        """W(t1) - W(t0) on the device and in the dtype of `like`."""
        sign = self._sign if t0 < t1 else -self._sign
        t0, t1 = (min(max(t, self._low), self._high) for t in (t0, t1))
        increment = self._tree(min(t0, t1), max(t0, t1)) * sign
        return increment.to(device=like.device, dtype=like.dtype)


class BrownianTreeNoiseSampler:
    """Standard normal noise for a step of an SDE solver: increments of one `BrownianTree`, divided by the root of their length.

    Two solvers with different steps over the same range see the same path. Kidger et al. 2021, arXiv:2105.13493.
    """

    def __init__(
        self,
        x: Tensor,
        sigma_min: Any,
        sigma_max: Any,
        seed: int | None = None,
        transform: Callable[[Any], Any] = lambda sigma: sigma,
        cpu: bool = False,
    ) -> None:
        self._like = x
        self._transform = transform
        self._tree = BrownianTree(x, transform(sigma_min), transform(sigma_max), seed, cpu=cpu)

    def __call__(self, sigma: Any, sigma_next: Any) -> Tensor:
        t0, t1 = float32(self._transform(sigma)), float32(self._transform(sigma_next))
        return self._tree(t0, t1, self._like) / abs(t1 - t0) ** 0.5
