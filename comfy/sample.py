"""Where custom nodes import one-call sampling from. Assigning one of the replaceable names here changes what the core calls."""

from typing import Any

from comfy.replaceable import write_through
from comfy.sampling.ksampler import sample, sample_custom
from comfy.sampling.noise import prepare_noise
from comfy.sampling.prepare import fix_empty_latent_channels, prepare_mask


def prepare_sampling(model: Any, noise_shape: Any, positive: Any, negative: Any, noise_mask: Any) -> tuple[Any, Any, Any, Any, list[Any]]:
    """Kept for packs that import it: hands its arguments back."""
    return model, positive, negative, noise_mask, []


def cleanup_additional_models(models: Any) -> None:
    """Kept for packs that import it: a run cleans up after itself."""


__all__ = [
    "cleanup_additional_models",
    "fix_empty_latent_channels",
    "prepare_mask",
    "prepare_noise",
    "prepare_sampling",
    "sample",
    "sample_custom",
]

write_through(__name__)
