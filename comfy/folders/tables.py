"""The model folders of a fresh server and the suffixes that they list. Facts: cli.md section 2."""

from __future__ import annotations

import os

#: suffixes of weight files; packs read and extend this very set as `folder_paths.supported_pt_extensions`
WEIGHT_SUFFIXES: set[str] = {".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft"}

#: names of former versions -> present name
LEGACY = {"unet": "diffusion_models", "clip": "text_encoders"}

#: kind -> (folders below models/, suffixes or None for WEIGHT_SUFFIXES), in listing order
_KINDS: dict[str, tuple[tuple[str, ...], set[str] | None]] = {
    "checkpoints": (("checkpoints",), None),
    "configs": (("configs",), {".yaml"}),
    "loras": (("loras",), None),
    "vae": (("vae",), None),
    "text_encoders": (("text_encoders", "clip"), None),
    "diffusion_models": (("unet", "diffusion_models"), None),
    "clip_vision": (("clip_vision",), None),
    "style_models": (("style_models",), None),
    "embeddings": (("embeddings",), None),
    "diffusers": (("diffusers",), {"folder"}),  # directories; no file has such a suffix
    "vae_approx": (("vae_approx",), None),
    "controlnet": (("controlnet", "t2i_adapter"), None),
    "gligen": (("gligen",), None),
    "upscale_models": (("upscale_models",), None),
    "custom_nodes": ((), set()),
    "hypernetworks": (("hypernetworks",), None),
    "photomaker": (("photomaker",), None),
    "classifiers": (("classifiers",), {""}),  # files without a suffix
    "model_patches": (("model_patches",), None),
    "audio_encoders": (("audio_encoders",), None),
}

#: what saver nodes write is offered by loaders: kind -> folder below output/
OUTPUT_KINDS = (
    ("checkpoints", "checkpoints"),
    ("text_encoders", "clip"),
    ("vae", "vae"),
    ("diffusion_models", "diffusion_models"),
    ("loras", "loras"),
)

Names = dict[str, tuple[list[str], set[str]]]


def map_legacy(folder_name: str) -> str:
    """`unet` -> `diffusion_models`, `clip` -> `text_encoders`, others as they are."""
    return LEGACY.get(folder_name, folder_name)


def default_names(base_dir: str) -> Names:
    """Kind -> ([absolute folders], {suffixes}) of a server whose base folder is `base_dir`."""
    models = os.path.join(base_dir, "models")
    names: Names = {
        kind: ([os.path.join(models, folder) for folder in folders], WEIGHT_SUFFIXES if suffixes is None else set(suffixes))
        for kind, (folders, suffixes) in _KINDS.items()
    }
    names["custom_nodes"][0].append(os.path.join(base_dir, "custom_nodes"))
    return names
