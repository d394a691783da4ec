"""Nodes that run a sampler, or only noise a latent."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from comfy.nodes.conventions import Conditioning, Latent, with_samples
from comfy.nodes.sampling import CFG, SEED
from comfy.nodes.stepping import prepare_callback
from comfy.nodes.v1 import required
from comfy.sampling import ksampler
from comfy.sampling.guider import CFGGuider as Guider
from comfy.sampling.prepare import fix_empty_latent_channels
from comfy.sampling.sampler import Sampler, stays_zero
from comfy_extras.custom_sampling.guiders import Noise_EmptyNoise, Noise_RandomNoise


def _outputs(latent: Latent, samples: Tensor, last: dict[str, Tensor], model: Any) -> tuple[Latent, Latent]:
    """(the result, the last estimate in the nodes' scale; the result again when no step was reported)."""
    out = with_samples(latent, samples)
    if "x0" not in last:
        return out, out
    return out, with_samples(latent, model.get_model_object("latent_format").process_out(last["x0"].cpu()))


class SamplerCustom:
    """A sampler over a list of sigmas, with classifier-free guidance."""

    CATEGORY, FUNCTION = "sampling/custom_sampling", "sample"
    RETURN_TYPES, RETURN_NAMES = ("LATENT", "LATENT"), ("output", "denoised_output")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(
            model=("MODEL",),
            add_noise=("BOOLEAN", {"default": True}),
            noise_seed=SEED,
            cfg=CFG,
            positive=("CONDITIONING",),
            negative=("CONDITIONING",),
            sampler=("SAMPLER",),
            sigmas=("SIGMAS",),
            latent_image=("LATENT",),
        )

    def sample(
        self,
        model: Any,
        add_noise: bool,
        noise_seed: int,
        cfg: float,
        positive: Conditioning,
        negative: Conditioning,
        sampler: Sampler,
        sigmas: Tensor,
        latent_image: Latent,
    ) -> tuple[Latent, Latent]:
        latent = with_samples(latent_image, fix_empty_latent_channels(model, latent_image["samples"]))
        noise = (Noise_RandomNoise(noise_seed) if add_noise else Noise_EmptyNoise()).generate_noise(latent)
        last: dict[str, Tensor] = {}
        samples = ksampler.sample_custom(
            model,
            noise,
            cfg,
            sampler,
            sigmas,
            positive,
            negative,
            latent["samples"],
            noise_mask=latent.get("noise_mask"),
            callback=prepare_callback(model, sigmas.shape[-1] - 1, last),
            disable_pbar=True,
            seed=noise_seed,
        )
        return _outputs(latent, samples, last, model)


class SamplerCustomAdvanced:
    """A sampler over a list of sigmas, with a guider and a source of noise."""

    CATEGORY, FUNCTION = "sampling/custom_sampling", "sample"
    RETURN_TYPES, RETURN_NAMES = ("LATENT", "LATENT"), ("output", "denoised_output")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(noise=("NOISE",), guider=("GUIDER",), sampler=("SAMPLER",), sigmas=("SIGMAS",), latent_image=("LATENT",))

    def sample(self, noise: Any, guider: Guider, sampler: Sampler, sigmas: Tensor, latent_image: Latent) -> tuple[Latent, Latent]:
        model = guider.model_patcher
        latent = with_samples(latent_image, fix_empty_latent_channels(model, latent_image["samples"]))
        last: dict[str, Tensor] = {}
        samples = guider.sample(
            noise.generate_noise(latent),
            latent["samples"],
            sampler,
            sigmas,
            denoise_mask=latent.get("noise_mask"),
            callback=prepare_callback(model, sigmas.shape[-1] - 1, last),
            disable_pbar=True,
            seed=noise.seed,
        )
        return _outputs(latent, samples.to("cpu"), last, model)


class AddNoise:
    """A latent with noise of the level between the first and the last sigma, or of the only one."""

    CATEGORY, FUNCTION, RETURN_TYPES = "_for_testing/custom_sampling/noise", "add_noise", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(model=("MODEL",), noise=("NOISE",), sigmas=("SIGMAS",), latent_image=("LATENT",))

    def add_noise(self, model: Any, noise: Any, sigmas: Tensor, latent_image: Latent) -> tuple[Latent]:
        if len(sigmas) == 0:
            return (latent_image,)
        samples = latent_image["samples"]
        latent_format, model_sampling = model.get_model_object("latent_format"), model.get_model_object("model_sampling")
        level = (sigmas[0] - sigmas[-1]).abs() if len(sigmas) > 1 else sigmas[0]
        scaled = samples if stays_zero(samples) else latent_format.process_in(samples)
        noised = model_sampling.noise_scaling(level, noise.generate_noise(latent_image), scaled)
        result = torch.nan_to_num(latent_format.process_out(noised), nan=0.0, posinf=0.0, neginf=0.0)
        return (with_samples(latent_image, result),)


NODES = {cls.__name__: cls for cls in (SamplerCustom, SamplerCustomAdvanced, AddNoise)}
