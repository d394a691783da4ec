"""Latents as files: `.latent`, a safetensors file with `latent_tensor` (contract: files.md section 2)."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import torch
from safetensors.torch import save

from comfy import folders
from comfy.errors import FileMissing, InputUnusable
from comfy.nodes.conventions import Latent
from comfy.nodes.image import content_hash, input_files, validate_file
from comfy.nodes.results import save_files, texts_for
from comfy.weights.fill import fill_slab
from comfy.weights.header import read_index
from comfy.weights.plan import SlabEntry, SlabKey, plan_slab
from comfy.weights.slab import Slab

SUFFIX = ".latent"
TENSOR = "latent_tensor"
#: an empty tensor of this name says that the latent is not multiplied; files without it hold SD1.5 model space
VERSION = "latent_format_version_0"
OLD_SCALE = 0.18215


def latent_bytes(samples: torch.Tensor, texts: dict[str, str]) -> bytes:
    """The file's content."""
    return save({TENSOR: samples.detach().to("cpu").contiguous(), VERSION: torch.tensor([])}, metadata=texts or None)


def read_latent(path: str, name: str) -> torch.Tensor:
    """`latent_tensor` in float32, unscaled. Raises FileMissing, WeightFileInvalid, InputUnusable."""
    if not os.path.isfile(path):
        raise FileMissing(filename=name)
    index = read_index(path)
    info = index.tensors.get(TENSOR)
    if info is None:
        raise InputUnusable("The file holds no latent.", filename=name, tensors=sorted(index.tensors)[:10])
    key = SlabKey(index.identity, "latent")
    slab = Slab(key, plan_slab(key, [SlabEntry(TENSOR, info, info.dtype)]))
    fill_slab(slab)
    samples = slab.tensor(TENSOR).float().clone()
    return samples if VERSION in index.tensors else samples * (1.0 / OLD_SCALE)


class SaveLatent:
    """A latent as a file of the output folder."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "_for_testing", "save", (), True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"samples": ("LATENT",), "filename_prefix": ("STRING", {"default": "latents/ComfyUI"})},
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def save(self, samples: Latent, filename_prefix: str = "ComfyUI", prompt: Any = None, extra_pnginfo: Any = None) -> dict[str, Any]:
        file = partial(latent_bytes, samples["samples"], texts_for(prompt, extra_pnginfo))
        return {"ui": {"latents": save_files([file], filename_prefix, SUFFIX)}}


class LoadLatent:
    """A latent from a file of the input folder."""

    CATEGORY, FUNCTION, RETURN_TYPES = "_for_testing", "load", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"latent": ([name for name in input_files() if name.endswith(SUFFIX)],)}}

    def load(self, latent: str) -> tuple[Latent]:
        return ({"samples": read_latent(folders.current().annotated_path(latent), latent)},)

    @classmethod
    def IS_CHANGED(cls, latent: str) -> str:
        return content_hash(latent)

    @classmethod
    def VALIDATE_INPUTS(cls, latent: str) -> bool | str:
        valid = validate_file(latent)
        return valid if valid is True else f"Invalid latent file: {latent}"


NODE_CLASS_MAPPINGS = {"LoadLatent": LoadLatent, "SaveLatent": SaveLatent}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}
