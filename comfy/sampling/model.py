"""What sampling needs of a model: the seam to the model families (L5), by shape and name only."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class SamplingModel(Protocol):
    """The lane's resident model behind a MODEL handle (`handle.model`).

    Latents are (b, c, h, w), or (b, c, t, h, w) for video and (b, c, n) for audio; sigma is (b,) float32.
    """

    model_sampling: Any
    latent_format: Any

    def apply_model(
        self,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: dict[str, Any] | None = None,
        transformer_options: dict[str, Any] = ...,
        **kwargs: Any,
    ) -> Tensor:
        """x (b, ...) at level t -> estimate of the clean latent, like x."""
        ...

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        """One conditioning entry, with noise, device, latent_image, denoise_mask, width, height -> {argument: CONDRegular ...}."""
        ...

    def process_latent_in(self, latent: Tensor) -> Tensor:
        """A latent as nodes hand it around -> the model's scale."""
        ...

    def process_latent_out(self, latent: Tensor) -> Tensor:
        """The inverse."""
        ...


class SamplingHandle(Protocol):
    """The MODEL object as guidance sees it."""

    model_options: dict[str, Any]
    load_device: torch.device

    @property
    def model(self) -> Any:
        """The calling lane's SamplingModel."""
        ...

    def get_model_object(self, name: str) -> Any:
        """An attribute of the model ("model_sampling", "latent_format"), object patches considered."""
        ...
