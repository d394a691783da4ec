"""Nodes that give a guider or a source of noise. Maths: comfy/sampling/guider.py and noise.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from comfy.nodes.conventions import Conditioning, Latent
from comfy.nodes.sampling import CFG, SEED
from comfy.nodes.v1 import required
from comfy.sampling.guidance import calc_cond_batch, cfg_function
from comfy.sampling.guider import CFGGuider as Guider
from comfy.sampling.noise import prepare_noise


class BasicGuiderCore(Guider):
    """One conditioning, no guidance."""

    def set_conds(self, positive: Conditioning, negative: Conditioning | None = None) -> None:
        self.inner_set_conds({"positive": positive})


class DualGuider(Guider):
    """Two conditionings and a negative, each pair with a scale of its own (contract D.1, DualCFG)."""

    def set_cfg(self, cfg1: float, cfg2: float = 1.0, nested: bool = False) -> None:
        self.cfg1, self.cfg2, self.nested = cfg1, cfg2, nested

    def set_dual_conds(self, positive: Conditioning, middle: Conditioning, negative: Conditioning) -> None:
        """positive is followed by cfg1 away from middle, middle by cfg2 away from negative."""
        self.inner_set_conds({"positive": positive, "middle": middle, "negative": negative})

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: dict[str, Any] | None = None, seed: int | None = None) -> Tensor:
        options = model_options or {}
        negative = self.conds.get("negative")
        middle = self.conds.get("middle")
        positive = self.conds.get("positive")
        if self.nested:
            c, m, u = calc_cond_batch(self.inner_model, [positive, middle, negative], x, timestep, options)
            inner = cfg_function(self.inner_model, c, m, self.cfg1, x, timestep, options, cond=positive, uncond=middle)
            return u + self.cfg2 * (inner - u)
        alone = self.cfg2 == 1.0 and not options.get("disable_cfg1_optimization", False)
        u, m, c = calc_cond_batch(self.inner_model, [None if alone else negative, middle, positive], x, timestep, options)
        base = cfg_function(self.inner_model, m, u, self.cfg2, x, timestep, options, cond=middle, uncond=negative)
        return base + self.cfg1 * (c - m)


class _GuiderNode:
    CATEGORY, FUNCTION, RETURN_TYPES = "sampling/custom_sampling/guiders", "get_guider", ("GUIDER",)


class BasicGuider(_GuiderNode):
    """One conditioning, no guidance."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(model=("MODEL",), conditioning=("CONDITIONING",))

    def get_guider(self, model: Any, conditioning: Conditioning) -> tuple[Guider]:
        guider = BasicGuiderCore(model)
        guider.set_conds(conditioning)
        return (guider,)


class CFGGuider(_GuiderNode):
    """Classifier-free guidance."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(model=("MODEL",), positive=("CONDITIONING",), negative=("CONDITIONING",), cfg=CFG)

    def get_guider(self, model: Any, positive: Conditioning, negative: Conditioning, cfg: float) -> tuple[Guider]:
        guider = Guider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(cfg)
        return (guider,)


class DualCFGGuider(_GuiderNode):
    """Guidance with two conditionings and a negative."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(
            model=("MODEL",),
            cond1=("CONDITIONING",),
            cond2=("CONDITIONING",),
            negative=("CONDITIONING",),
            cfg_conds=CFG,
            cfg_cond2_negative=CFG,
            style=(["regular", "nested"],),
        )

    def get_guider(
        self,
        model: Any,
        cond1: Conditioning,
        cond2: Conditioning,
        negative: Conditioning,
        cfg_conds: float,
        cfg_cond2_negative: float,
        style: str,
    ) -> tuple[Guider]:
        guider = DualGuider(model)
        guider.set_dual_conds(cond1, cond2, negative)
        guider.set_cfg(cfg_conds, cfg_cond2_negative, nested=style == "nested")
        return (guider,)


class Noise_EmptyNoise:
    """What the NOISE type carries when no noise is added."""

    seed = 0

    def generate_noise(self, input_latent: Latent) -> Tensor:
        """Zeros like the latent's samples, on the CPU."""
        samples = input_latent["samples"]
        return torch.zeros(samples.shape, dtype=samples.dtype, layout=samples.layout, device="cpu")


class Noise_RandomNoise:
    """What the NOISE type carries: the draws of a seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def generate_noise(self, input_latent: Latent) -> Tensor:
        """Noise for the latent's samples, by its batch_index if it has one."""
        noise: Tensor = prepare_noise(input_latent["samples"], self.seed, input_latent.get("batch_index"))
        return noise


class _NoiseNode:
    CATEGORY, FUNCTION, RETURN_TYPES = "sampling/custom_sampling/noise", "get_noise", ("NOISE",)


class DisableNoise(_NoiseNode):
    """No noise."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required()

    def get_noise(self) -> tuple[Noise_EmptyNoise]:
        return (Noise_EmptyNoise(),)


class RandomNoise(_NoiseNode):
    """The noise of a seed."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(noise_seed=SEED)

    def get_noise(self, noise_seed: int) -> tuple[Noise_RandomNoise]:
        return (Noise_RandomNoise(noise_seed),)


NODES = {cls.__name__: cls for cls in (BasicGuider, CFGGuider, DualCFGGuider, RandomNoise, DisableNoise)}
