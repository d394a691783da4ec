"""A sampler as nodes hand it around, and the model that its function calls, inpainting included (contract D.3)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from comfy import control
from comfy.errors import InputUnusable
from comfy.sampling.noise import Continued, prepare_noise
from comfy.sampling.prediction import per_sample

#: (step, x0, x, total steps)
StepCallback = Callable[[int, Tensor, Tensor, int], None]


class KSamplerX0Inpaint:
    """The callable that samplers see: (x, sigma_b) -> guided x0, outside the mask held to the latent.

    Each call first looks whether the job was asked to stop, so an interrupt costs at most one evaluation.
    """

    def __init__(self, model: Any, sigmas: Tensor) -> None:
        self.inner_model = model
        self.sigmas = sigmas
        self.latent_image: Tensor | None = None
        self.noise: Tensor | None = None
        self.continued: Continued | None = None

    def __call__(
        self,
        x: Tensor,
        sigma: Tensor,
        denoise_mask: Tensor | None = None,
        model_options: dict[str, Any] | None = None,
        seed: int | None = None,
    ) -> Tensor:
        control.check()
        options = {} if model_options is None else model_options
        if denoise_mask is None:
            free: Tensor = self.inner_model(x, sigma, model_options=options, seed=seed)
            return free
        if "denoise_mask_function" in options:
            facts = {"model": self.inner_model, "sigmas": self.sigmas}
            denoise_mask = options["denoise_mask_function"](sigma, denoise_mask, extra_options=facts)
        assert self.latent_image is not None
        keep = 1.0 - denoise_mask
        model_sampling = self.inner_model.inner_model.model_sampling
        noised = model_sampling.noise_scaling(per_sample(sigma, x), self.noise, self.latent_image)
        out: Tensor = self.inner_model(x * denoise_mask + noised * keep, sigma, model_options=options, seed=seed)
        return out * denoise_mask + self.latent_image * keep


class Sampler:
    """Base of what the SAMPLER type carries."""

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: StepCallback | None,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """Walk `sigmas` down from `noise` over `latent_image`; returns the latent in the model's scale."""
        raise TypeError(f"{type(self).__name__} does not sample")

    def max_denoise(self, model_wrap: Any, sigmas: Tensor) -> bool:
        """Whether the first sigma is the model's greatest (within 1e-5) or above it."""
        greatest = float(model_wrap.inner_model.model_sampling.sigma_max)
        first = float(sigmas[0])
        return math.isclose(greatest, first, rel_tol=1e-05) or first > greatest


class KSAMPLER(Sampler):
    """A function of `comfy.k_diffusion.sampling` with its options."""

    def __init__(
        self,
        sampler_function: Callable[..., Tensor],
        extra_options: dict[str, Any] | None = None,
        inpaint_options: dict[str, Any] | None = None,
    ) -> None:
        self.sampler_function = sampler_function
        self.extra_options = extra_options or {}
        self.inpaint_options = inpaint_options or {}

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: StepCallback | None,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        extra_args["denoise_mask"] = denoise_mask
        seed = extra_args.get("seed")
        model_k = KSamplerX0Inpaint(model_wrap, sigmas)
        model_k.latent_image = latent_image
        model_k.continued = Continued(getattr(model_wrap, "initial_noise", None), seed)
        model_k.noise = noise
        if denoise_mask is not None and self.inpaint_options.get("random", False):
            model_k.noise = prepare_noise(noise, ((seed or 0) + 1) % 2**64).to(noise)  # ddim's own noise outside the mask
        model_sampling = model_wrap.inner_model.model_sampling
        start = model_sampling.noise_scaling(sigmas[0], noise, latent_image, self.max_denoise(model_wrap, sigmas))
        total_steps = len(sigmas) - 1

        def report(step: dict[str, Any]) -> None:
            if callback is not None:
                callback(step["i"], step["denoised"], step["x"], total_steps)

        samples = self.sampler_function(
            model_k, start, sigmas, extra_args=extra_args, callback=report, disable=disable_pbar, **self.extra_options
        )
        result: Tensor = model_sampling.inverse_noise_scaling(sigmas[-1], samples)
        return result


#: sampler names in the contract's order; packs insert their own, and add `sample_<name>` to comfy.k_diffusion.sampling
KSAMPLER_NAMES: list[str] = [
    "euler", "euler_cfg_pp", "euler_ancestral", "euler_ancestral_cfg_pp", "heun", "heunpp2", "dpm_2", "dpm_2_ancestral",
    "lms", "dpm_fast", "dpm_adaptive", "dpmpp_2s_ancestral", "dpmpp_2s_ancestral_cfg_pp", "dpmpp_sde", "dpmpp_sde_gpu",
    "dpmpp_2m", "dpmpp_2m_cfg_pp", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu",
    "dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "ddpm", "lcm", "ipndm", "ipndm_v", "deis", "res_multistep", "res_multistep_cfg_pp",
    "res_multistep_ancestral", "res_multistep_ancestral_cfg_pp", "gradient_estimation", "gradient_estimation_cfg_pp",
    "er_sde", "seeds_2", "seeds_3", "sa_solver", "sa_solver_pece",
]  # fmt: skip
SAMPLER_NAMES: list[str] = [*KSAMPLER_NAMES, "ddim", "uni_pc", "uni_pc_bh2"]


def ksampler(sampler_name: str, extra_options: dict[str, Any] | None = None, inpaint_options: dict[str, Any] | None = None) -> KSAMPLER:
    """The sampler `sample_<sampler_name>` of comfy.k_diffusion.sampling. Raises InputUnusable when there is none.

    The function is looked up when the sampler is made, so that one which a pack has added there is found.
    """
    from comfy.k_diffusion import sampling  # imports this package's noise

    function = getattr(sampling, f"sample_{sampler_name}", None)
    if function is None:
        raise InputUnusable("There is no such sampler.", sampler=sampler_name)
    return KSAMPLER(function, extra_options, inpaint_options)


def sampler_object(name: str) -> KSAMPLER:
    """The sampler of a name of SAMPLER_NAMES. `ddim` is Euler that draws its own noise outside a mask."""
    if name == "ddim":
        return ksampler("euler", inpaint_options={"random": True})
    return ksampler(name)


def stays_zero(latent: Tensor | None) -> bool:
    """Whether a latent is absent or entirely zero: then it is not brought to the model's scale."""
    return latent is None or not bool(torch.count_nonzero(latent))
