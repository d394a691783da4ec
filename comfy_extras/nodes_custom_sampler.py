"""Sampling put together from parts: schedules, samplers, guiders, noise (contract: goldens README A.3, B.4, C, D.1)."""

from __future__ import annotations

from typing import Any

from comfy_extras.custom_sampling import guiders, runs, samplers, schedulers, sigmas

NODE_CLASS_MAPPINGS = {
    **runs.NODES,
    **schedulers.NODES,
    **samplers.NODES,
    **sigmas.NODES,
    **guiders.NODES,
}
NODE_DISPLAY_NAME_MAPPINGS = {"SamplerEulerAncestralCFGPP": "SamplerEulerAncestralCFG++"}

# what packs import from here besides the nodes, under the ecosystem's names
Noise_EmptyNoise = guiders.Noise_EmptyNoise
Noise_RandomNoise = guiders.Noise_RandomNoise
Guider_Basic = guiders.BasicGuiderCore


def __getattr__(name: str) -> Any:
    """A node class of this module by its name: packs import them to call them from Python."""
    if name in NODE_CLASS_MAPPINGS:
        return NODE_CLASS_MAPPINGS[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
