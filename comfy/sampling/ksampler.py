"""The KSampler: steps, denoise, first and last step -> a list of sigmas, and the run over it (contract A.4)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from comfy.errors import InputUnusable
from comfy.replaceable import lookup, replaceable
from comfy.sampling import guider, schedules
from comfy.sampling.prepare import fix_empty_latent_channels
from comfy.sampling.sampler import SAMPLER_NAMES, Sampler, StepCallback, sampler_object


class KSampler:
    """A sampler by name, a scheduler by name and a number of steps, for one MODEL."""

    #: packs read, extend and, for the length of a call, replace these two lists
    SCHEDULERS = schedules.SCHEDULER_NAMES
    SAMPLERS = SAMPLER_NAMES
    #: these build one step more and leave out the last sigma but one
    DISCARD_PENULTIMATE_SIGMA_SAMPLERS = frozenset({"dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"})

    def __init__(
        self,
        model: Any,
        steps: int,
        device: Any,
        sampler: str | None = None,
        scheduler: str | None = None,
        denoise: float | None = None,
        model_options: dict[str, Any] | None = None,
    ) -> None:
        """`model` is a MODEL handle; an unknown sampler or scheduler is replaced by the first of its list."""
        self.model = model
        self.device = device
        self.scheduler = scheduler if scheduler in self.SCHEDULERS else self.SCHEDULERS[0]
        self.sampler = sampler if sampler in self.SAMPLERS else self.SAMPLERS[0]
        self.model_options = model_options or {}
        self.denoise = denoise
        self.set_steps(steps, denoise)

    def calculate_sigmas(self, steps: int) -> Tensor:
        """The scheduler's whole list for `steps` steps of this sampler."""
        discard = self.sampler in self.DISCARD_PENULTIMATE_SIGMA_SAMPLERS
        model_sampling = self.model.get_model_object("model_sampling")
        sigmas: Tensor = schedules.calculate_sigmas(model_sampling, self.scheduler, steps + 1 if discard else steps)
        return torch.cat([sigmas[:-2], sigmas[-1:]]) if discard else sigmas

    def set_steps(self, steps: int, denoise: float | None = None) -> None:
        """Set `sigmas`: the whole list, or for denoise below 1 the last steps of a longer one, or nothing at 0."""
        self.steps = steps
        if denoise is None or denoise > 0.9999:
            self.sigmas = self.calculate_sigmas(steps)
        elif denoise <= 0.0:
            self.sigmas = torch.zeros(0)
        else:
            self.sigmas = self.calculate_sigmas(int(steps / denoise))[-(steps + 1) :]

    def sample(
        self,
        noise: Tensor,
        positive: Any,
        negative: Any,
        cfg: float,
        latent_image: Tensor | None = None,
        start_step: int | None = None,
        last_step: int | None = None,
        force_full_denoise: bool = False,
        denoise_mask: Tensor | None = None,
        sigmas: Tensor | None = None,
        callback: StepCallback | None = None,
        disable_pbar: bool = False,
        seed: int | None = None,
    ) -> Tensor:
        """Sample between two steps; a start at or after the end gives `latent_image` back (zeros without one)."""
        chosen = cut_sigmas(self.sigmas if sigmas is None else sigmas, start_step, last_step, force_full_denoise)
        if chosen is None:
            return torch.zeros_like(noise) if latent_image is None else latent_image
        samples: Tensor = guider.sample(
            self.model,
            noise,
            positive,
            negative,
            cfg,
            self.device,
            sampler_object(self.sampler),
            chosen,
            self.model_options,
            latent_image=latent_image,
            denoise_mask=denoise_mask,
            callback=callback,
            disable_pbar=disable_pbar,
            seed=seed,
        )
        return samples


# Packs assign another class to comfy.samplers.KSampler; callers ask the table.
replaceable("comfy.samplers.KSampler")(KSampler)


def cut_sigmas(sigmas: Tensor, start_step: int | None, last_step: int | None, force_full_denoise: bool) -> Tensor | None:
    """The part of a list that a run walks, as a copy; None when nothing is left to do. Rules 3 and 4 of contract A.4."""
    sigmas = sigmas.clone()
    if last_step is not None and last_step < len(sigmas) - 1:
        sigmas = sigmas[: last_step + 1]
        if force_full_denoise:
            sigmas[-1] = 0
    if start_step is not None:
        if start_step >= len(sigmas) - 1:
            return None
        sigmas = sigmas[start_step:]
    return sigmas


@replaceable("comfy.sample.sample")
def sample(
    model: Any,
    noise: Tensor,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Any,
    negative: Any,
    latent_image: Tensor,
    denoise: float = 1.0,
    disable_noise: bool = False,
    start_step: int | None = None,
    last_step: int | None = None,
    force_full_denoise: bool = False,
    noise_mask: Tensor | None = None,
    sigmas: Tensor | None = None,
    callback: StepCallback | None = None,
    disable_pbar: bool = False,
    seed: int | None = None,
) -> Tensor:
    """KSampler in one call; returns the latent on the CPU, where nodes keep it.

    Raises InputUnusable for names that do not exist.
    """
    cls: Any = lookup("comfy.samplers.KSampler")
    if sampler_name not in cls.SAMPLERS or scheduler not in cls.SCHEDULERS:
        raise InputUnusable("There is no such sampler or scheduler.", sampler=sampler_name, scheduler=scheduler)
    sampler = cls(
        model,
        steps=steps,
        device=model.load_device,
        sampler=sampler_name,
        scheduler=scheduler,
        denoise=denoise,
        model_options=model.model_options,
    )
    samples: Tensor = sampler.sample(
        noise,
        positive,
        negative,
        cfg=cfg,
        latent_image=latent_image,
        start_step=start_step,
        last_step=last_step,
        force_full_denoise=force_full_denoise,
        denoise_mask=noise_mask,
        sigmas=sigmas,
        callback=callback,
        disable_pbar=disable_pbar,
        seed=seed,
    )
    return samples.to("cpu")


@replaceable("comfy.sample.sample_custom")
def sample_custom(
    model: Any,
    noise: Tensor,
    cfg: float,
    sampler: Sampler,
    sigmas: Tensor,
    positive: Any,
    negative: Any,
    latent_image: Tensor,
    noise_mask: Tensor | None = None,
    callback: StepCallback | None = None,
    disable_pbar: bool = False,
    seed: int | None = None,
) -> Tensor:
    """A sampler object over a given list of sigmas, plain guidance; returns the latent on the CPU."""
    samples: Tensor = guider.sample(
        model,
        noise,
        positive,
        negative,
        cfg,
        model.load_device,
        sampler,
        sigmas,
        model_options=model.model_options,
        latent_image=latent_image,
        denoise_mask=noise_mask,
        callback=callback,
        disable_pbar=disable_pbar,
        seed=seed,
    )
    return samples.to("cpu")


__all__ = ["KSampler", "cut_sigmas", "fix_empty_latent_channels", "sample", "sample_custom"]
