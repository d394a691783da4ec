"""Nodes that change a list of sigmas, or ask for one. Maths: comfy/sampling/curves.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from comfy.nodes.v1 import number, required, rounded, whole
from comfy.nodes.v3 import io
from comfy.sampling import curves


class _Sigmas:
    CATEGORY = "sampling/custom_sampling/sigmas"
    RETURN_TYPES: tuple[str, ...] = ("SIGMAS",)


class SplitSigmas(_Sigmas):
    """The part down to a step, and the part from it on."""

    FUNCTION, RETURN_TYPES, RETURN_NAMES = "get_sigmas", ("SIGMAS", "SIGMAS"), ("high_sigmas", "low_sigmas")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(sigmas=("SIGMAS",), step=whole(0, 0, 10000))

    def get_sigmas(self, sigmas: Tensor, step: int) -> tuple[Tensor, Tensor]:
        return curves.split(sigmas, step)


class SplitSigmasDenoise(_Sigmas):
    """Split so that the second part is a share of the steps."""

    FUNCTION, RETURN_TYPES, RETURN_NAMES = "get_sigmas", ("SIGMAS", "SIGMAS"), ("high_sigmas", "low_sigmas")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(sigmas=("SIGMAS",), denoise=rounded(1.0, 0.0, 1.0))

    def get_sigmas(self, sigmas: Tensor, denoise: float) -> tuple[Tensor, Tensor]:
        return curves.split_denoise(sigmas, denoise)


class FlipSigmas(_Sigmas):
    """The list reversed."""

    FUNCTION = "get_sigmas"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(sigmas=("SIGMAS",))

    def get_sigmas(self, sigmas: Tensor) -> tuple[Tensor]:
        return (curves.flip(sigmas),)


class SetFirstSigma(_Sigmas):
    """The list with another first value."""

    FUNCTION = "set_first_sigma"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(sigmas=("SIGMAS",), sigma=number(136.0, 0.0, 20000.0, 0.001))

    def set_first_sigma(self, sigmas: Tensor, sigma: float) -> tuple[Tensor]:
        return (curves.set_first(sigmas, sigma),)


class ExtendIntermediateSigmas(_Sigmas):
    """More steps between two sigmas."""

    FUNCTION = "extend"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(
            sigmas=("SIGMAS",),
            steps=whole(2, 1, 100),
            start_at_sigma=number(-1.0, -1.0, 20000.0),
            end_at_sigma=number(12.0, 0.0, 20000.0),
            spacing=(["linear", "cosine", "sine"],),
        )

    def extend(self, sigmas: Tensor, steps: int, start_at_sigma: float, end_at_sigma: float, spacing: str) -> tuple[Tensor]:
        return (curves.extend(sigmas, steps, start_at_sigma, end_at_sigma, spacing),)


class SamplingPercentToSigma:
    """The sigma at which a part of the sampling is done; with `return_actual_sigma` the model's own limits at either end."""

    CATEGORY, FUNCTION = "sampling/custom_sampling/sigmas", "get_sigma"
    RETURN_TYPES, RETURN_NAMES = (io.Float.io_type,), ("sigma_value",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        tooltip = "Give the model's greatest and least sigma at 0 and 1, instead of values beyond them."
        return required(
            model=("MODEL", {}),
            sampling_percent=rounded(0.0, 0.0, 1.0, 0.0001),
            return_actual_sigma=("BOOLEAN", {"default": False, "tooltip": tooltip}),
        )

    def get_sigma(self, model: Any, sampling_percent: float, return_actual_sigma: bool) -> tuple[float]:
        model_sampling = model.get_model_object("model_sampling")
        if return_actual_sigma and sampling_percent <= 0.0:
            return (float(model_sampling.sigma_max),)
        if return_actual_sigma and sampling_percent >= 1.0:
            return (float(model_sampling.sigma_min),)
        return (float(model_sampling.percent_to_sigma(sampling_percent)),)


NODES = {
    cls.__name__: cls
    for cls in (SplitSigmas, SplitSigmasDenoise, FlipSigmas, SetFirstSigma, ExtendIntermediateSigmas, SamplingPercentToSigma)
}
