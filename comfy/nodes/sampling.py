"""KSampler and its variant with every step in sight."""

from __future__ import annotations

from typing import Any

import torch

from comfy.nodes.conventions import Conditioning, Latent, with_samples
from comfy.nodes.stepping import prepare_callback
from comfy.sampling import ksampler
from comfy.sampling.noise import prepare_noise
from comfy.sampling.prepare import fix_empty_latent_channels

SEED = ("INT", {"default": 0, "min": 0, "max": 0xFFFFFFFFFFFFFFFF, "control_after_generate": True})
STEPS = ("INT", {"default": 20, "min": 1, "max": 10000})
CFG = ("FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1, "round": 0.01})


def _with_tooltip(declared: tuple[Any, ...], tooltip: str) -> tuple[Any, ...]:
    options = declared[1] if len(declared) > 1 else {}
    return declared[0], {**options, "tooltip": tooltip}


def common_ksampler(
    model: Any,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Conditioning,
    negative: Conditioning,
    latent: Latent,
    denoise: float = 1.0,
    disable_noise: bool = False,
    start_step: int | None = None,
    last_step: int | None = None,
    force_full_denoise: bool = False,
) -> tuple[Latent]:
    """Run a KSampler over a latent; packs call this too. Without noise (`disable_noise`) the latent is taken as it is."""
    samples = fix_empty_latent_channels(model, latent["samples"])
    if disable_noise:
        noise = torch.zeros(samples.size(), dtype=samples.dtype, layout=samples.layout, device="cpu")
    else:
        noise = prepare_noise(samples, seed, latent.get("batch_index"))
    result = ksampler.sample(
        model,
        noise,
        steps,
        cfg,
        sampler_name,
        scheduler,
        positive,
        negative,
        samples,
        denoise=denoise,
        disable_noise=disable_noise,
        start_step=start_step,
        last_step=last_step,
        force_full_denoise=force_full_denoise,
        noise_mask=latent.get("noise_mask"),
        callback=prepare_callback(model, steps),
        disable_pbar=True,
        seed=seed,
    )
    return (with_samples(latent, result),)


class KSampler:
    """Denoise a latent with a model, steered by two prompts."""

    CATEGORY, FUNCTION, RETURN_TYPES = "sampling", "sample", ("LATENT",)
    OUTPUT_TOOLTIPS = ("The denoised latent.",)
    DESCRIPTION = "Denoises the latent image with the model, towards the positive and away from the negative prompt."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "What denoises."}),
                "seed": _with_tooltip(SEED, "One seed, one noise."),
                "steps": _with_tooltip(STEPS, "How many steps the way is cut into."),
                "cfg": _with_tooltip(CFG, "How strongly the prompts are followed; 1 leaves the negative out."),
                "sampler_name": (ksampler.KSampler.SAMPLERS, {"tooltip": "How each step is taken."}),
                "scheduler": (ksampler.KSampler.SCHEDULERS, {"tooltip": "How much noise each step takes away."}),
                "positive": ("CONDITIONING", {"tooltip": "What the picture shall show."}),
                "negative": ("CONDITIONING", {"tooltip": "What it shall not show."}),
                "latent_image": ("LATENT", {"tooltip": "Where to start from."}),
                "denoise": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01, "tooltip": "Below 1 the start shows through."}),
            }
        }

    def sample(
        self,
        model: Any,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        positive: Conditioning,
        negative: Conditioning,
        latent_image: Latent,
        denoise: float = 1.0,
    ) -> tuple[Latent]:
        return common_ksampler(model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent_image, denoise=denoise)


class KSamplerAdvanced:
    """A KSampler from one step to another, with or without noise at either end."""

    CATEGORY, FUNCTION, RETURN_TYPES = "sampling", "sample", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": ("MODEL",),
                "add_noise": (["enable", "disable"],),
                "noise_seed": SEED,
                "steps": STEPS,
                "cfg": CFG,
                "sampler_name": (ksampler.KSampler.SAMPLERS,),
                "scheduler": (ksampler.KSampler.SCHEDULERS,),
                "positive": ("CONDITIONING",),
                "negative": ("CONDITIONING",),
                "latent_image": ("LATENT",),
                "start_at_step": ("INT", {"default": 0, "min": 0, "max": 10000}),
                "end_at_step": ("INT", {"default": 10000, "min": 0, "max": 10000}),
                "return_with_leftover_noise": (["disable", "enable"],),
            }
        }

    def sample(
        self,
        model: Any,
        add_noise: str,
        noise_seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        positive: Conditioning,
        negative: Conditioning,
        latent_image: Latent,
        start_at_step: int,
        end_at_step: int,
        return_with_leftover_noise: str,
        denoise: float = 1.0,
    ) -> tuple[Latent]:
        return common_ksampler(
            model,
            noise_seed,
            steps,
            cfg,
            sampler_name,
            scheduler,
            positive,
            negative,
            latent_image,
            denoise=denoise,
            disable_noise=add_noise == "disable",
            start_step=start_at_step,
            last_step=end_at_step,
            force_full_denoise=return_with_leftover_noise != "enable",
        )


NODE_CLASS_MAPPINGS = {"KSampler": KSampler, "KSamplerAdvanced": KSamplerAdvanced}
NODE_DISPLAY_NAME_MAPPINGS = {"KSampler": "KSampler", "KSamplerAdvanced": "KSampler (Advanced)"}
