"""Nodes that change models by LoRA files. Only a file's header is read here; its weights when a lane needs them."""

from __future__ import annotations

from typing import Any

from comfy import folders

STRENGTH = {"default": 1.0, "min": -100.0, "max": 100.0, "step": 0.01}


def _names() -> list[str]:
    return folders.current().filename_list("loras")


def _changed(model: Any, clip: Any, name: str, strength_model: float, strength_clip: float) -> tuple[Any, Any]:
    from comfy.models.lora.apply import with_lora  # pulls in every network: not needed to list the nodes
    from comfy.models.lora.tensors import file_tensors

    tensors = file_tensors(folders.current().full_path_or_raise("loras", name))
    return with_lora(model, clip, tensors, strength_model, strength_clip)


class LoraLoader:
    """A LoRA file on a model and its text encoder; either strength may be negative, 0 leaves that side as it is."""

    CATEGORY, FUNCTION = "loaders", "load_lora"
    RETURN_TYPES = ("MODEL", "CLIP")
    OUTPUT_TOOLTIPS = ("The changed diffusion model.", "The changed text encoder.")
    DESCRIPTION = "Changes a diffusion model and its text encoder with a LoRA, to alter style or subjects. Several can follow each other."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "The diffusion model to change."}),
                "clip": ("CLIP", {"tooltip": "The text encoder to change."}),
                "lora_name": (_names(), {"tooltip": "The file."}),
                "strength_model": ("FLOAT", {**STRENGTH, "tooltip": "How much of it on the diffusion model. May be negative."}),
                "strength_clip": ("FLOAT", {**STRENGTH, "tooltip": "How much of it on the text encoder. May be negative."}),
            }
        }

    def load_lora(self, model: Any, clip: Any, lora_name: str, strength_model: float, strength_clip: float) -> tuple[Any, Any]:
        if strength_model == 0 and strength_clip == 0:
            return model, clip
        return _changed(model, clip, lora_name, strength_model, strength_clip)


class LoraLoaderModelOnly(LoraLoader):
    """A LoRA file on a model alone."""

    FUNCTION = "load_lora_model_only"
    RETURN_TYPES = ("MODEL",)  # type: ignore[assignment]
    OUTPUT_TOOLTIPS = ("The changed diffusion model.",)  # type: ignore[assignment]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",), "lora_name": (_names(),), "strength_model": ("FLOAT", STRENGTH)}}

    def load_lora_model_only(self, model: Any, lora_name: str, strength_model: float) -> tuple[Any]:
        return (self.load_lora(model, None, lora_name, strength_model, 0)[0],)


NODE_CLASS_MAPPINGS = {"LoraLoader": LoraLoader, "LoraLoaderModelOnly": LoraLoaderModelOnly}
NODE_DISPLAY_NAME_MAPPINGS = {"LoraLoader": "Load LoRA"}
