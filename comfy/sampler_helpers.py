"""Where custom nodes import the preparation of a sampling run from."""

from comfy.sampling.prepare import (
    cleanup_additional_models,
    cleanup_models,
    convert_cond,
    get_additional_models,
    get_models_from_cond,
    prepare_mask,
    prepare_model_patcher,
    prepare_sampling,
)

__all__ = [
    "cleanup_additional_models",
    "cleanup_models",
    "convert_cond",
    "get_additional_models",
    "get_models_from_cond",
    "prepare_mask",
    "prepare_model_patcher",
    "prepare_sampling",
]
