"""Nodes that turn a file's name into handles."""

from __future__ import annotations

from typing import Any

from comfy import folders


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


NODE_CLASS_MAPPINGS = {"CheckpointLoaderSimple": CheckpointLoaderSimple}
NODE_DISPLAY_NAME_MAPPINGS = {"CheckpointLoaderSimple": "Load Checkpoint"}
