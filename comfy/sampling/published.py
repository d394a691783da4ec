"""Lists of sigmas that papers publish for ten or more steps; other step counts are log-linear between them (contract A.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from comfy.sampling.curves import from_table
from comfy.sampling.tables import discrete_sigmas

#: timesteps of the discrete Stable Diffusion table. Sabour et al. 2024, arXiv:2404.14507
_ALIGNED_TIMESTEPS = {
    "SD1": (999, 850, 736, 645, 545, 455, 343, 233, 124, 24, 0),
    "SDXL": (999, 845, 730, 587, 443, 310, 193, 116, 53, 13, 0),
}
#: the same paper's list for Stable Video Diffusion, in sigmas
_ALIGNED_SVD = [700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002]

#: Pei et al. 2025, arXiv:2503.21774, to three or four digits. Entries that no recorded list reaches are smooth between those
#: that do (docs/fidelity.md)
_OPTIMAL_STEPS = {
    "FLUX": [0.9968, 0.9886, 0.9819, 0.975, 0.966, 0.9471, 0.9158, 0.8287, 0.5512, 0.2808, 0.001],
    "Wan": [
        1.0, 0.997, 0.995, 0.993, 0.991, 0.989, 0.987, 0.985, 0.98, 0.975, 0.973,
        0.968, 0.96, 0.946, 0.927, 0.902, 0.864, 0.776, 0.539, 0.208, 0.001,
    ],
    "Chroma": [
        0.992, 0.99, 0.988, 0.985, 0.982, 0.978, 0.973, 0.968, 0.961, 0.953, 0.943, 0.931, 0.917, 0.9,
        0.881, 0.858, 0.832, 0.802, 0.769, 0.731, 0.69, 0.646, 0.599, 0.55, 0.501, 0.451, 0.402, 0.355,
        0.311, 0.27, 0.232, 0.199, 0.169, 0.143, 0.12, 0.101, 0.084, 0.07, 0.058, 0.048, 0.001,
    ],
}  # fmt: skip

ALIGNED_MODELS = ["SD1", "SDXL", "SVD"]
OPTIMAL_MODELS = list(_OPTIMAL_STEPS)


def align_your_steps(model_type: str, steps: int, denoise: float) -> Tensor:
    """The list of `model_type` for `steps` steps, its end set to 0; denoise keeps the last steps."""
    values = aligned_values(model_type)
    return from_table(values, steps, denoise, resample=steps + 1 != len(values))


def aligned_values(model_type: str) -> list[float]:
    """The published list, 11 values."""
    if model_type == "SVD":
        return _ALIGNED_SVD
    table = discrete_sigmas(1000, 0.00085, 0.012)
    picked: list[float] = table[torch.tensor(_ALIGNED_TIMESTEPS[model_type])].tolist()
    return picked


def optimal_steps(model_type: str, steps: int, denoise: float) -> Tensor:
    """The list of `model_type` for `steps` steps, its end set to 0; denoise keeps the last steps."""
    values = _OPTIMAL_STEPS[model_type]
    return from_table(values, steps, denoise, resample=steps + 1 != len(values))
