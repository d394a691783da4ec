"""Where custom nodes import model loading from."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from comfy.compat.from_state_dict import load_diffusion_model_state_dict, load_state_dict_guess_config, load_text_encoder_state_dicts
from comfy.errors import ModelUnknown
from comfy.models import loader
from comfy.models.clip import CLIP
from comfy.models.lora.apply import with_lora
from comfy.models.patcher import ModelPatcher
from comfy.models.precision import STORAGE
from comfy.models.saving import checkpoint_tensors
from comfy.models.vae import VAE

__all__ = [
    "CLIP",
    "VAE",
    "CLIPType",
    "load_checkpoint",
    "load_checkpoint_guess_config",
    "load_clip",
    "load_diffusion_model",
    "load_diffusion_model_state_dict",
    "load_lora_for_models",
    "load_state_dict_guess_config",
    "load_text_encoder_state_dicts",
    "load_unet",
    "save_checkpoint",
]

#: what CLIPLoader and its kin call the text encoders of a family
CLIPType = enum.Enum(
    "CLIPType",
    "STABLE_DIFFUSION STABLE_CASCADE SD3 STABLE_AUDIO HUNYUAN_DIT FLUX MOCHI LTXV HUNYUAN_VIDEO PIXART COSMOS LUMINA2 WAN "
    "HIDREAM CHROMA ACE OMNIGEN2 QWEN_IMAGE HUNYUAN_IMAGE",
)
#: those whose encoders we have; which family's they are, the files say
_CLIP_TYPES = (CLIPType.STABLE_DIFFUSION,)
#: dtypes of `model_options` in which weights are kept -> their names
_STORAGE = {dtype: name for name, dtype in STORAGE.items() if not name.endswith("_fast")}


def load_checkpoint_guess_config(
    ckpt_path: str,
    output_vae: bool = True,
    output_clip: bool = True,
    output_clipvision: bool = False,
    embedding_directory: str | Sequence[str] | None = None,
    output_model: bool = True,
    model_options: Mapping[str, Any] | None = None,
    te_model_options: Mapping[str, Any] | None = None,
) -> tuple[ModelPatcher | None, CLIP | None, VAE | None, None]:
    """(model, clip, vae, clip vision) of an all-in-one file, None for what is not wanted or not in it.

    Raises RuntimeError for a file of no known family, as callers expect, and our own errors for a file that is no weights.
    """
    try:
        found = loader.load_checkpoint(ckpt_path, embedding_folders=_folders(embedding_directory))
    except ModelUnknown as error:
        raise RuntimeError(str(error)) from error
    return found.model if output_model else None, found.clip if output_clip else None, found.vae if output_vae else None, None


def load_checkpoint(
    config_path: str | None = None,
    ckpt_path: str | None = None,
    output_vae: bool = True,
    output_clip: bool = True,
    embedding_directory: str | Sequence[str] | None = None,
    state_dict: Mapping[str, Tensor] | None = None,
    config: Any = None,
) -> tuple[ModelPatcher | None, CLIP | None, VAE | None]:
    """(model, clip, vae): the older form. The configuration is not read; the file says what it is."""
    if ckpt_path is None:
        return load_state_dict_guess_config(state_dict or {}, output_vae, output_clip, embedding_directory=embedding_directory)[:3]
    return load_checkpoint_guess_config(ckpt_path, output_vae, output_clip, embedding_directory=embedding_directory)[:3]


def load_diffusion_model(unet_path: str, model_options: Mapping[str, Any] | None = None) -> ModelPatcher:
    """The MODEL of a file with a diffusion model. Raises RuntimeError for one of no known family.

    model_options  `dtype`: an 8-bit type to keep the weights in; other types are the lane's to choose
    """
    try:
        return loader.load_diffusion_model(unet_path, storage=_STORAGE.get((model_options or {}).get("dtype"), "default"))
    except ModelUnknown as error:
        raise RuntimeError(str(error)) from error


def load_unet(unet_path: str, dtype: Any = None) -> ModelPatcher:
    """`load_diffusion_model` by its former name."""
    return load_diffusion_model(unet_path, {"dtype": dtype})


def load_clip(
    ckpt_paths: Sequence[str],
    embedding_directory: str | Sequence[str] | None = None,
    clip_type: Any = CLIPType.STABLE_DIFFUSION,
    model_options: Mapping[str, Any] | None = None,
) -> CLIP:
    """The CLIP of a family's text encoder files. Raises RuntimeError for a family that we do not have."""
    if clip_type not in _CLIP_TYPES:
        raise RuntimeError(f"text encoders of the type {getattr(clip_type, 'name', clip_type)} are not supported")
    return loader.load_clip(ckpt_paths, family=None, embedding_folders=_folders(embedding_directory))


def load_lora_for_models(
    model: Any, clip: Any, lora: Mapping[str, Any], strength_model: float, strength_clip: float
) -> tuple[Any | None, Any | None]:
    """New handles with the LoRA's tensors added to their patches; None stays None."""
    return with_lora(model, clip, lora, strength_model, strength_clip)


def save_checkpoint(
    output_path: str,
    model: Any,
    clip: Any = None,
    vae: Any = None,
    clip_vision: Any = None,
    metadata: Mapping[str, str] | None = None,
    extra_keys: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the handles as one safetensors file in the layout of released checkpoints. A vision encoder is not written."""
    from safetensors.torch import save_file

    tensors = {**checkpoint_tensors(model, clip, vae), **(extra_keys or {})}
    save_file(tensors, output_path, metadata=dict(metadata) if metadata else None)


def _folders(given: str | Sequence[str] | None) -> tuple[str, ...] | None:
    return (given,) if isinstance(given, str) else None if given is None else tuple(given)
