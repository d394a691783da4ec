"""Nodes that mix weights of models, and save models. Mixing adds patches: nothing is computed before a lane needs the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from comfy.errors import InputUnusable
from comfy.nodes.results import save_files, texts_for

DENOISER = "diffusion_model."
RATIO = ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01})
MULTIPLIER = ("FLOAT", {"default": 1.0, "min": -10.0, "max": 10.0, "step": 0.01})
HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
#: buffers and temperatures of text encoders: never mixed
NOT_MIXED = (".position_ids", ".logit_scale")
SUFFIX = ".safetensors"

#: a weight's key -> (factor of the other model's weight, factor of the model's own)
Factors = Callable[[str], tuple[float, float]]


def mixed(handle: Any, other: Any, factors: Factors, prefix: str | None = None) -> Any:
    """A new handle whose weights are own_factor·own + factor·other's, for every weight that `other` has too."""
    if handle is None or other is None:
        raise InputUnusable("There is no text encoder to mix: the checkpoint holds none.")
    changed = handle.clone()
    found = other.get_key_patches(prefix) if prefix else other.get_key_patches()
    for key, value in found.items():
        if not key.endswith(NOT_MIXED):
            strength, own = factors(key)
            changed.add_patches({key: value}, strength, own)
    return changed


def by_blocks(ratios: Mapping[str, float]) -> Factors:
    """Each weight mixed by the ratio of the longest name in `ratios` that its own begins with; else by the first one."""
    first = next(iter(ratios.values()))

    def factors(key: str) -> tuple[float, float]:
        name = key[len(DENOISER) :]
        match = max((block for block in ratios if name.startswith(block)), key=len, default=None)
        ratio = first if match is None else ratios[match]
        return 1.0 - ratio, ratio

    return factors


class _Merge:
    CATEGORY, FUNCTION = "advanced/model_merging", "merge"
    RETURN_TYPES: tuple[str, ...] = ("MODEL",)


class ModelMergeSimple(_Merge):
    """ratio·model1 + (1 - ratio)·model2"""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model1": ("MODEL",), "model2": ("MODEL",), "ratio": RATIO}}

    def merge(self, model1: Any, model2: Any, ratio: float) -> tuple[Any]:
        return (mixed(model1, model2, lambda key: (1.0 - ratio, ratio), DENOISER),)


class ModelMergeSubtract(_Merge):
    """multiplier·(model1 - model2)"""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model1": ("MODEL",), "model2": ("MODEL",), "multiplier": MULTIPLIER}}

    def merge(self, model1: Any, model2: Any, multiplier: float) -> tuple[Any]:
        return (mixed(model1, model2, lambda key: (-multiplier, multiplier), DENOISER),)


class ModelMergeAdd(_Merge):
    """model1 + model2"""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model1": ("MODEL",), "model2": ("MODEL",)}}

    def merge(self, model1: Any, model2: Any) -> tuple[Any]:
        return (mixed(model1, model2, lambda key: (1.0, 1.0), DENOISER),)


class ModelMergeBlocks(_Merge):
    """As ModelMergeSimple with a ratio for each part of the model."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model1": ("MODEL",), "model2": ("MODEL",), "input": RATIO, "middle": RATIO, "out": RATIO}}

    def merge(self, model1: Any, model2: Any, **ratios: float) -> tuple[Any]:
        return (mixed(model1, model2, by_blocks(ratios), DENOISER),)


class _MergeClip(_Merge):
    RETURN_TYPES = ("CLIP",)


class CLIPMergeSimple(_MergeClip):
    """ratio·clip1 + (1 - ratio)·clip2"""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"clip1": ("CLIP",), "clip2": ("CLIP",), "ratio": RATIO}}

    def merge(self, clip1: Any, clip2: Any, ratio: float) -> tuple[Any]:
        return (mixed(clip1, clip2, lambda key: (1.0 - ratio, ratio)),)


class CLIPMergeSubtract(_MergeClip):
    """multiplier·(clip1 - clip2)"""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"clip1": ("CLIP",), "clip2": ("CLIP",), "multiplier": MULTIPLIER}}

    def merge(self, clip1: Any, clip2: Any, multiplier: float) -> tuple[Any]:
        return (mixed(clip1, clip2, lambda key: (-multiplier, multiplier)),)


class CLIPMergeAdd(_MergeClip):
    """clip1 + clip2"""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"clip1": ("CLIP",), "clip2": ("CLIP",)}}

    def merge(self, clip1: Any, clip2: Any) -> tuple[Any]:
        return (mixed(clip1, clip2, lambda key: (1.0, 1.0)),)


def _write(tensors: Callable[[], dict[str, Any]], prefix: str, texts: dict[str, str]) -> None:
    from safetensors.torch import save

    save_files([lambda: save(tensors(), metadata=texts or None)], prefix, SUFFIX)


class _Save:
    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "advanced/model_merging", "save", (), True


class CheckpointSave(_Save):
    """A model, a text encoder and a VAE as one file."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        prefix = ("STRING", {"default": "checkpoints/ComfyUI"})
        return {"required": {"model": ("MODEL",), "clip": ("CLIP",), "vae": ("VAE",), "filename_prefix": prefix}, "hidden": HIDDEN}

    def save(self, model: Any, clip: Any, vae: Any, filename_prefix: str, prompt: Any = None, extra_pnginfo: Any = None) -> dict[str, Any]:
        from comfy.models.saving import checkpoint_tensors, model_spec

        texts = {**model_spec(model, filename_prefix), **texts_for(prompt, extra_pnginfo)}
        _write(partial(checkpoint_tensors, model, clip, vae), filename_prefix, texts)
        return {}


class CLIPSave(_Save):
    """Each text encoder as a file of its own, which CLIPLoader reads."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"clip": ("CLIP",), "filename_prefix": ("STRING", {"default": "clip/ComfyUI"})}, "hidden": HIDDEN}

    def save(self, clip: Any, filename_prefix: str, prompt: Any = None, extra_pnginfo: Any = None) -> dict[str, Any]:
        from comfy.models.saving import encoder_tensors

        if clip is None:
            raise InputUnusable("There is no text encoder to save: the checkpoint holds none.", input="clip")
        for stream, _ in clip.source.parts:
            file_prefix = f"{filename_prefix}_{stream.name}"
            _write(partial(encoder_tensors, clip, stream.name), file_prefix, texts_for(prompt, extra_pnginfo))
        return {}


class VAESave(_Save):
    """A VAE as a file of its own, which VAELoader reads."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"vae": ("VAE",), "filename_prefix": ("STRING", {"default": "vae/ComfyUI_vae"})}, "hidden": HIDDEN}

    def save(self, vae: Any, filename_prefix: str, prompt: Any = None, extra_pnginfo: Any = None) -> dict[str, Any]:
        from comfy.models.saving import vae_tensors

        if vae is None:
            raise InputUnusable("There is no VAE to save: the checkpoint holds none.", input="vae")
        _write(partial(vae_tensors, vae), filename_prefix, texts_for(prompt, extra_pnginfo))
        return {}


class ModelSave(_Save):
    """A diffusion model as a file of its own, which UNETLoader reads."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        prefix = ("STRING", {"default": "diffusion_models/ComfyUI"})
        return {"required": {"model": ("MODEL",), "filename_prefix": prefix}, "hidden": HIDDEN}

    def save(self, model: Any, filename_prefix: str, prompt: Any = None, extra_pnginfo: Any = None) -> dict[str, Any]:
        from comfy.models.saving import checkpoint_tensors, model_spec

        texts = {**model_spec(model, filename_prefix), **texts_for(prompt, extra_pnginfo)}
        _write(partial(checkpoint_tensors, model), filename_prefix, texts)
        return {}


NODE_CLASS_MAPPINGS = {
    "ModelMergeSimple": ModelMergeSimple,
    "ModelMergeBlocks": ModelMergeBlocks,
    "ModelMergeSubtract": ModelMergeSubtract,
    "ModelMergeAdd": ModelMergeAdd,
    "CheckpointSave": CheckpointSave,
    "CLIPMergeSimple": CLIPMergeSimple,
    "CLIPMergeSubtract": CLIPMergeSubtract,
    "CLIPMergeAdd": CLIPMergeAdd,
    "CLIPSave": CLIPSave,
    "VAESave": VAESave,
    "ModelSave": ModelSave,
}
NODE_DISPLAY_NAME_MAPPINGS = {"CheckpointSave": "Save Checkpoint"}
