"""What a network's output means: from the noisy latent and the output to the estimate of the clean latent.

Each class holds the four rules of one parameterization (contract: goldens README A.1). They are mixins: a sampling type
is one of these plus a sigma table of `parameterization.py`, put together by inheritance as the ecosystem does it.

Shapes: sigma is () or (b,), latents are (b, c, ...); everything stays on the latent's device and in its dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor


def per_sample(sigma: Tensor, like: Tensor) -> Tensor:
    """sigma () or (b,) in a shape that multiplies `like` (b, c, ...) sample by sample."""
    if sigma.ndim == 0 or sigma.ndim == like.ndim:
        return sigma
    return sigma.reshape(sigma.shape[:1] + (1,) * (like.ndim - 1))


class EPS:
    """The output is the noise: x0 = x - sigma F. Ho et al. 2020, arXiv:2006.11239, in the scaling of arXiv:2206.00364."""

    sigma_data: float = 1.0

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        """The network's input for the noisy latent `noise`."""
        sigma = per_sample(sigma, noise)
        return noise / (sigma**2 + self.sigma_data**2) ** 0.5

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        """The estimate of the clean latent; `model_input` is the noisy latent before `calculate_input`."""
        return model_input - model_output * per_sample(sigma, model_output)

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool = False) -> Tensor:
        """`latent_image` with `noise` of level sigma; `max_denoise` gives the variance of an infinite sigma's end."""
        sigma = per_sample(sigma, noise)
        level = torch.sqrt(1.0 + sigma**2.0) if max_denoise else sigma
        return noise * level + latent_image

    def inverse_noise_scaling(self, sigma: Tensor, latent: Tensor) -> Tensor:
        """What is returned for a latent that the sampler left at level sigma."""
        return latent


class V_PREDICTION(EPS):
    """The output is the velocity. Salimans and Ho 2022, arXiv:2202.00512."""

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        sigma = per_sample(sigma, model_output)
        total = sigma**2 + self.sigma_data**2
        return model_input * self.sigma_data**2 / total - model_output * sigma * self.sigma_data / total**0.5


class EDM(V_PREDICTION):
    """The preconditioning of Karras et al. 2022, arXiv:2206.00364, table 1."""

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        sigma = per_sample(sigma, model_output)
        total = sigma**2 + self.sigma_data**2
        return model_input * self.sigma_data**2 / total + model_output * sigma * self.sigma_data / total**0.5


class X0(EPS):
    """The output is the clean latent itself."""

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        return model_output


class IMG_TO_IMG(X0):
    """The clean latent from an input that is no noisy one and stays as it is. He et al. 2024, arXiv:2409.18124."""

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        return noise


class LCM(EPS):
    """Noise prediction under the boundary condition of consistency models. Luo et al. 2023, arXiv:2310.04378, eq. 8."""

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        timestep = per_sample(self.timestep(sigma), model_output)  # type: ignore[attr-defined]
        x0 = model_input - model_output * per_sample(sigma, model_output)
        half = 0.5
        scaled = timestep * 10.0
        total = scaled**2 + half**2
        return scaled / total**0.5 * x0 + half**2 / total * model_input


class CONST:
    """Rectified flow: the output is the constant velocity n - x0. Liu et al. 2022, arXiv:2209.03003."""

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        """The noisy latent itself."""
        return noise

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        """x - sigma F."""
        return model_input - model_output * per_sample(sigma, model_output)

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool = False) -> Tensor:
        """The point at sigma on the line from the latent to the noise; there is no other start, so `max_denoise` has no effect."""
        sigma = per_sample(sigma, noise)
        return sigma * noise + (1.0 - sigma) * latent_image

    def inverse_noise_scaling(self, sigma: Tensor, latent: Tensor) -> Tensor:
        """Undo the shrinking of the latent at level sigma (infinite at sigma 1, as the contract records)."""
        return latent / (1.0 - per_sample(sigma, latent))


class COSMOS_RFLOW:
    """Rectified flow over w = sigma / (sigma + 1), driven in the variance-exploding scaling (contract A.1, last row)."""

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        """(1 - w) x."""
        sigma = per_sample(sigma, noise)
        return noise * (1.0 - sigma / (sigma + 1.0))

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        """(1 - w) x - w F."""
        sigma = per_sample(sigma, model_output)
        w = sigma / (sigma + 1.0)
        return model_input * (1.0 - w) - model_output * w

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool = False) -> Tensor:
        """latent + sigma noise."""
        return noise * per_sample(sigma, noise) + latent_image

    def inverse_noise_scaling(self, sigma: Tensor, latent: Tensor) -> Tensor:
        """The latent itself."""
        return latent
