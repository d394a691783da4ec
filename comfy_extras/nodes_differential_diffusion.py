"""A mask that opens step by step. Maths: comfy/sampling/variants.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from comfy.nodes.v3 import io
from comfy.sampling import variants


@dataclass(frozen=True)
class OpenMask:
    """The mask of the step at sigma, from the model's timesteps."""

    strength: float

    def __call__(self, sigma: Tensor, denoise_mask: Tensor, extra_options: dict[str, Any]) -> Tensor:
        model_sampling = extra_options["model"].inner_model.model_sampling
        sigmas: Tensor = extra_options["sigmas"]
        lowest = torch.maximum(model_sampling.sigma_min.to(sigmas), sigmas[-1])
        now, first, last = (model_sampling.timestep(s) for s in (sigma.reshape(-1)[0], sigmas[0], lowest))
        return variants.step_mask(denoise_mask, now, first, last, self.strength)


class DifferentialDiffusion(io.ComfyNode):
    """Let soft masks say how early a place may change."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DifferentialDiffusion",
            display_name="Differential Diffusion",
            category="_for_testing",
            is_experimental=True,
            inputs=[
                io.Model.Input("model"),
                io.Float.Input("strength", default=1.0, min=0.0, max=1.0, step=0.01, optional=True),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, strength: float = 1.0) -> io.NodeOutput:
        changed = model.clone()
        changed.set_model_denoise_mask_function(OpenMask(strength))
        return io.NodeOutput(changed)


NODE_CLASS_MAPPINGS = {"DifferentialDiffusion": DifferentialDiffusion}
NODE_DISPLAY_NAME_MAPPINGS = {"DifferentialDiffusion": "Differential Diffusion"}
