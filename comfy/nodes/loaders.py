"""Nodes that turn a file's name into handles."""

from __future__ import annotations

import os
from typing import Any

from comfy import folders
from comfy.errors import FileMissing, InputUnusable


class CheckpointLoaderSimple:
    """One file with denoiser, text encoder and VAE -> three handles. Nothing is read before a lane needs it."""

    CATEGORY, FUNCTION = "loaders", "load_checkpoint"
    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    OUTPUT_TOOLTIPS = (
        "The model that removes noise from latents.",
        "The text encoder for prompts.",
        "The VAE between pictures and latents.",
    )
    DESCRIPTION = "Loads a checkpoint: a diffusion model with its text encoder and its VAE."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        names = folders.current().filename_list("checkpoints")
        return {"required": {"ckpt_name": (names, {"tooltip": "The checkpoint (model) to load."})}}

    def load_checkpoint(self, ckpt_name: str) -> tuple[Any, Any, Any]:
        from comfy.models.loader import load_checkpoint  # pulls in every network: not needed to list the nodes

        model, clip, vae = load_checkpoint(folders.current().full_path_or_raise("checkpoints", ckpt_name))
        return model, clip, vae


#: what CLIPLoader and DualCLIPLoader call the families whose encoders we have
CLIP_TYPES = ("stable_diffusion", "sdxl")
DEVICE = (["default", "cpu"], {"advanced": True})


def _path(kind: str, name: str) -> str:
    return folders.current().full_path_or_raise(kind, name)


def _names(kind: str) -> list[str]:
    return folders.current().filename_list(kind)


def _clip(type: str, *names: str) -> Any:
    from comfy.models.loader import load_clip

    if type not in CLIP_TYPES:
        raise InputUnusable("This server has no text encoders of this type yet.", type=type, known=list(CLIP_TYPES))
    return load_clip([_path("text_encoders", name) for name in names], family=None)


class UNETLoader:
    """A diffusion model from a file of its own. The fp8 types keep the weights in 8 bit and compute in 16."""

    CATEGORY, FUNCTION, RETURN_TYPES = "advanced/loaders", "load_unet", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        kinds = ["default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"]
        return {"required": {"unet_name": (_names("diffusion_models"),), "weight_dtype": (kinds,)}}

    def load_unet(self, unet_name: str, weight_dtype: str) -> tuple[Any]:
        from comfy.models.loader import load_diffusion_model

        return (load_diffusion_model(_path("diffusion_models", unet_name), storage=weight_dtype),)


class CLIPLoader:
    """A text encoder from a file of its own. The lane's device runs it, whatever `device` says."""

    CATEGORY, FUNCTION, RETURN_TYPES = "advanced/loaders", "load_clip", ("CLIP",)
    DESCRIPTION = "Loads one text encoder: CLIP-L for SD1, CLIP-H for SD2, CLIP-G for the SDXL refiner."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        types = "stable_diffusion stable_cascade sd3 stable_audio mochi ltxv pixart cosmos lumina2 wan hidream chroma ace omnigen2"
        return {
            "required": {"clip_name": (_names("text_encoders"),), "type": ([*types.split(), "qwen_image", "hunyuan_image"],)},
            "optional": {"device": DEVICE},
        }

    def load_clip(self, clip_name: str, type: str = "stable_diffusion", device: str = "default") -> tuple[Any]:
        return (_clip(type, clip_name),)


class DualCLIPLoader:
    """Two text encoders, each from a file of its own, in either order."""

    CATEGORY, FUNCTION, RETURN_TYPES = "advanced/loaders", "load_clip", ("CLIP",)
    DESCRIPTION = "Loads two text encoders: CLIP-L and CLIP-G for SDXL."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        names = _names("text_encoders")
        types = ["sdxl", "sd3", "flux", "hunyuan_video", "hidream", "hunyuan_image"]
        return {"required": {"clip_name1": (names,), "clip_name2": (names,), "type": (types,)}, "optional": {"device": DEVICE}}

    def load_clip(self, clip_name1: str, clip_name2: str, type: str, device: str = "default") -> tuple[Any]:
        return (_clip(type, clip_name1, clip_name2),)


class VAELoader:
    """A VAE from a file of its own, or the identity for models that work on pixels."""

    CATEGORY, FUNCTION, RETURN_TYPES = "loaders", "load_vae", ("VAE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"vae_name": (cls.vae_list(),)}}

    @staticmethod
    def vae_list() -> list[str]:
        """The files, the small VAEs whose two files are in vae_approx, and the identity."""
        from comfy.models.tiny import tiny_vae_names

        return [*_names("vae"), *tiny_vae_names(), "pixel_space"]

    def load_vae(self, vae_name: str) -> tuple[Any]:
        from comfy.models.loader import load_vae
        from comfy.models.tiny import load_tiny_vae, tiny_vae_names
        from comfy.models.vae import PIXEL_SPACE, VAE

        if vae_name == "pixel_space":
            return (VAE({PIXEL_SPACE: True}),)
        if vae_name in tiny_vae_names():
            return (load_tiny_vae(vae_name),)
        return (load_vae(_path("vae", vae_name)),)


class DiffusersLoader:
    """A folder in diffusers' layout -> three handles."""

    CATEGORY, FUNCTION = "advanced/loaders/deprecated", "load_checkpoint"
    RETURN_TYPES = ("MODEL", "CLIP", "VAE")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model_path": (sorted(_diffusers_folders()),)}}

    def load_checkpoint(self, model_path: str) -> tuple[Any, Any, Any]:
        from comfy.models.loader import load_diffusers

        folder = _diffusers_folders().get(model_path)
        if folder is None:
            raise FileMissing(filename=model_path)
        model, clip, vae = load_diffusers(folder)
        return model, clip, vae


def _diffusers_folders() -> dict[str, str]:
    """Name -> path of every folder with a model_index.json, below the folders for such models."""
    found: dict[str, str] = {}
    for root in folders.current().models.folders("diffusers"):
        for path, _, names in os.walk(root, followlinks=True):
            if "model_index.json" in names:
                found.setdefault(os.path.relpath(path, root), path)
    return found


NODE_CLASS_MAPPINGS = {
    "CheckpointLoaderSimple": CheckpointLoaderSimple,
    "UNETLoader": UNETLoader,
    "CLIPLoader": CLIPLoader,
    "DualCLIPLoader": DualCLIPLoader,
    "VAELoader": VAELoader,
    "DiffusersLoader": DiffusersLoader,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "CheckpointLoaderSimple": "Load Checkpoint",
    "UNETLoader": "Load Diffusion Model",
    "CLIPLoader": "Load CLIP",
    "VAELoader": "Load VAE",
}
