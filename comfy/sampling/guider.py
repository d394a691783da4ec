"""A guider: a MODEL, the conditionings that steer it, and the run of one sampler over them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from comfy.replaceable import replaceable
from comfy.sampling import extension, prepare
from comfy.sampling.areas import Entry
from comfy.sampling.extension import WrapperExecutor, WrappersMP
from comfy.sampling.guidance import sampling_function
from comfy.sampling.sampler import Sampler, StepCallback, stays_zero


class CFGGuider:
    """Classifier-free guidance between "positive" and "negative". Subclasses override `set_conds` and `predict_noise`.

    conds, inner_model  exist while `sample` runs; inner_model is the lane's SamplingModel
    """

    def __init__(self, model_patcher: Any) -> None:
        self.model_patcher = model_patcher
        self.model_options: dict[str, Any] = model_patcher.model_options
        self.original_conds: dict[str, list[Entry]] = {}
        self.conds: dict[str, list[Entry]] = {}
        self.inner_model: Any = None
        self.initial_noise: Tensor | None = None
        self.cfg = 1.0

    def set_conds(self, positive: Any, negative: Any) -> None:
        """Take the two conditionings as nodes hand them over."""
        self.inner_set_conds({"positive": positive, "negative": negative})

    def set_cfg(self, cfg: float) -> None:
        """Set the scale of the guidance."""
        self.cfg = cfg

    def inner_set_conds(self, conds: dict[str, Any]) -> None:
        """Take conditionings under any names."""
        self.original_conds = {name: prepare.convert_cond(conditioning) for name, conditioning in conds.items()}

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """(x, sigma_b, model_options=, seed=) -> guided x0, the wrappers of PREDICT_NOISE around it."""
        wrappers = extension.get_all_wrappers(WrappersMP.PREDICT_NOISE, self.model_options, is_model_options=True)
        guided: Tensor = WrapperExecutor.new_class_executor(self.predict_noise, self, wrappers).execute(*args, **kwargs)
        return guided

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: dict[str, Any] | None = None, seed: int | None = None) -> Tensor:
        """The guided prediction (of x0, in spite of the name that the ecosystem gave it)."""
        guided: Tensor = sampling_function(
            self.inner_model,
            x,
            timestep,
            self.conds.get("negative"),
            self.conds.get("positive"),
            self.cfg,
            model_options=model_options or {},
            seed=seed,
        )
        return guided

    def sample(
        self,
        noise: Tensor,
        latent_image: Tensor,
        sampler: Sampler,
        sigmas: Tensor,
        denoise_mask: Tensor | None = None,
        callback: StepCallback | None = None,
        disable_pbar: bool = False,
        seed: int | None = None,
    ) -> Tensor:
        """Run `sampler` over `sigmas`; returns the latent in the nodes' scale. No sigmas: `latent_image` as it is."""
        if sigmas.shape[-1] == 0:
            return latent_image
        given_options = self.model_options
        self.conds = {name: [dict(entry) for entry in entries] for name, entries in self.original_conds.items()}
        self.model_options = extension.copy_nested_dicts(given_options)
        self.initial_noise = noise
        try:
            wrappers = extension.get_all_wrappers(WrappersMP.OUTER_SAMPLE, self.model_options, is_model_options=True)
            executor = WrapperExecutor.new_class_executor(self.outer_sample, self, wrappers)
            output: Tensor = executor.execute(noise, latent_image, sampler, sigmas, denoise_mask, callback, disable_pbar, seed)
            return output
        finally:
            self.model_options = given_options
            self.conds, self.initial_noise = {}, None

    def outer_sample(
        self,
        noise: Tensor,
        latent_image: Tensor,
        sampler: Sampler,
        sigmas: Tensor,
        denoise_mask: Tensor | None = None,
        callback: StepCallback | None = None,
        disable_pbar: bool = False,
        seed: int | None = None,
    ) -> Tensor:
        """Bring model and tensors to the lane's device, sample, and let go of both."""
        self.inner_model, self.conds, models = prepare.prepare_sampling(self.model_patcher, noise.shape, self.conds, self.model_options)
        device = self.model_patcher.load_device
        empty = stays_zero(latent_image)  # asked before the copy: on the GPU the answer would have to be waited for
        if denoise_mask is not None:
            denoise_mask = prepare.prepare_mask(denoise_mask, noise.shape, device)
        try:
            if hasattr(self.model_patcher, "pre_run"):
                self.model_patcher.pre_run()
            noise, latent_image = noise.to(device), latent_image.to(device)
            if not empty:
                latent_image = self.inner_model.process_latent_in(latent_image)
            return self._sample_scaled(noise, latent_image, device, sampler, sigmas.to(device), denoise_mask, callback, disable_pbar, seed)
        finally:
            if hasattr(self.model_patcher, "cleanup"):
                self.model_patcher.cleanup()
            prepare.cleanup_models(self.conds, models)
            self.inner_model = None

    def inner_sample(
        self,
        noise: Tensor,
        latent_image: Tensor,
        device: Any,
        sampler: Sampler,
        sigmas: Tensor,
        denoise_mask: Tensor | None,
        callback: StepCallback | None,
        disable_pbar: bool,
        seed: int | None,
    ) -> Tensor:
        """Sample on the device, from a latent in the nodes' scale."""
        if not stays_zero(latent_image):
            latent_image = self.inner_model.process_latent_in(latent_image)
        return self._sample_scaled(noise, latent_image, device, sampler, sigmas, denoise_mask, callback, disable_pbar, seed)

    def _sample_scaled(
        self,
        noise: Tensor,
        latent_image: Tensor,
        device: Any,
        sampler: Sampler,
        sigmas: Tensor,
        denoise_mask: Tensor | None,
        callback: StepCallback | None,
        disable_pbar: bool,
        seed: int | None,
    ) -> Tensor:
        self.conds = prepare.process_conds(self.inner_model, noise, self.conds, device, latent_image, denoise_mask, seed)
        options = extension.copy_nested_dicts(self.model_options)
        options.setdefault("transformer_options", {})["sample_sigmas"] = sigmas
        extra_args = {"model_options": options, "seed": seed}
        wrappers = extension.get_all_wrappers(WrappersMP.SAMPLER_SAMPLE, options, is_model_options=True)
        executor = WrapperExecutor.new_class_executor(sampler.sample, sampler, wrappers)
        samples: Tensor = executor.execute(self, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar)
        scaled: Tensor = self.inner_model.process_latent_out(samples.to(torch.float32))
        return scaled


@replaceable("comfy.samplers.sample")
def sample(
    model: Any,
    noise: Tensor,
    positive: Any,
    negative: Any,
    cfg: float,
    device: Any,
    sampler: Sampler,
    sigmas: Tensor,
    model_options: dict[str, Any] | None = None,
    latent_image: Tensor | None = None,
    denoise_mask: Tensor | None = None,
    callback: StepCallback | None = None,
    disable_pbar: bool = False,
    seed: int | None = None,
) -> Tensor:
    """One run of `sampler` with plain guidance; `model` is a MODEL handle. `device` is the handle's own and only kept for packs."""
    guider = CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    latent = torch.zeros_like(noise) if latent_image is None else latent_image
    return guider.sample(noise, latent, sampler, sigmas, denoise_mask, callback, disable_pbar, seed)
