"""A pack that replaces functions of the core and of torch while it samples, and puts them back: for exclusive mode."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import comfy.model_management
import comfy.samplers
import nodes
from server import PromptServer

foreign: list[str | None] = []  # prompts of others that ran through what was swapped in


@contextmanager
def swapped(prompt_id: str | None) -> Iterator[None]:
    sampling, forward = comfy.samplers.sampling_function, torch.nn.GroupNorm.forward

    def note() -> None:
        if PromptServer.instance.last_prompt_id != prompt_id:
            foreign.append(PromptServer.instance.last_prompt_id)

    def zero(model: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        note()
        sampling(model, x, *args, **kwargs)
        return torch.zeros_like(x)

    def norm(self: torch.nn.GroupNorm, input: torch.Tensor) -> torch.Tensor:
        note()
        return forward(self, input) * 0

    comfy.samplers.sampling_function = zero
    torch.nn.GroupNorm.forward = norm  # type: ignore[method-assign]
    try:
        yield
    finally:
        comfy.samplers.sampling_function = sampling
        torch.nn.GroupNorm.forward = forward  # type: ignore[method-assign]


class SwapSampled:
    """Waits in the swapped state until the file `gate` is there, then samples: all zeros."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "swapper", "run", (), True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",), "positive": ("CONDITIONING",), "gate": ("STRING", {"default": ""})}}

    def run(self, model: Any, positive: Any, gate: str) -> dict[str, Any]:
        latent = {"samples": torch.zeros(1, 4, 8, 8)}
        with swapped(PromptServer.instance.last_prompt_id):
            Path(gate + ".inside").touch()
            until = time.monotonic() + 60
            while not Path(gate).exists():
                comfy.model_management.throw_exception_if_processing_interrupted()
                assert time.monotonic() < until
                time.sleep(0.005)
            (out,) = nodes.common_ksampler(model, 1, 1, 1.0, "euler", "normal", positive, positive, latent)
        return {"ui": {"text": [str(float(out["samples"].abs().max())), *map(str, foreign)]}}


NODE_CLASS_MAPPINGS = {"SwapSampled": SwapSampled}
