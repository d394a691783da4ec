"""Sampling put together from parts: schedules, samplers, guiders, noise (contract: goldens README A.3, B.4, C, D.1)."""

from __future__ import annotations

from comfy_extras.custom_sampling import guiders, runs, samplers, schedulers, sigmas

NODE_CLASS_MAPPINGS = {
    **runs.NODES,
    **schedulers.NODES,
    **samplers.NODES,
    **sigmas.NODES,
    **guiders.NODES,
}
NODE_DISPLAY_NAME_MAPPINGS = {"SamplerEulerAncestralCFGPP": "SamplerEulerAncestralCFG++"}
