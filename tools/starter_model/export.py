"""Trained weights -> the files that the server loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tools.starter_model.networks import LATENT_SCALE, TextNetwork, Weights

UNET_FILE, TEXT_FILE, VAE_FILE = "starter_unet.safetensors", "starter_text.safetensors", "starter_vae.safetensors"
LORA_FILE, PREVIEW_FILE = "starter_neon_lora.safetensors", "starter_taesd_decoder.safetensors"
CONTROL_FILE = "starter_edges_controlnet.safetensors"


def save(path: Path, weights: Mapping[str, Tensor], prefix: str = "", **facts: str) -> None:
    """Write `weights` as float16 under `prefix`. Raises ValueError when one of them is no finite float16."""
    ready = {}
    for name, tensor in weights.items():
        half = tensor.detach().to("cpu", torch.float16).contiguous()
        if not torch.isfinite(half).all():
            raise ValueError(f"{prefix}{name} is not finite in float16")
        ready[prefix + name] = half
    save_file(ready, path, {"format": "pt", **facts})


def save_base(folder: Path, unet: Weights, text: TextNetwork, text_weights: Weights, vae: Weights) -> None:
    """The three parts, each with the names that it has in an all-in-one file; `merge.py` joins them."""
    save(folder / UNET_FILE, unet, "model.diffusion_model.")
    save(folder / TEXT_FILE, text.full(text_weights), "cond_stage_model.transformer.")
    save(folder / VAE_FILE, vae, "first_stage_model.")


def save_lora(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Pairs named as kohya's trainer names them, alpha equal to the rank."""
    named = {}
    for name, tensor in weights.items():
        layer, half = name.rsplit(".", 1)
        key = "lora_unet_" + layer.replace(".", "_")
        named[f"{key}.lora_{half}.weight"] = tensor
        if half == "down":
            named[f"{key}.alpha"] = torch.tensor(float(tensor.shape[0]))
    save(path, named)


def whitened(vae: Mapping[str, Tensor], mean: Tensor, std: Tensor) -> Weights:
    """The same autoencoder with other latents: LATENT_SCALE times each channel has mean 0 and deviation 1.

    mean, std  (4,) of the latents as they are. The change is folded into the two 1×1 convolutions.
    """
    changed = {name: tensor.detach().clone() for name, tensor in vae.items()}
    scale = 1 / (std * LATENT_SCALE)
    weight, bias = changed["quant_conv.weight"], changed["quant_conv.bias"]
    weight[:4] *= scale[:, None, None, None]
    bias[:4] = (bias[:4] - mean) * scale
    bias[4:] += 2 * scale.log()
    changed["post_quant_conv.bias"] += changed["post_quant_conv.weight"][:, :, 0, 0] @ mean
    changed["post_quant_conv.weight"] /= scale[None, :, None, None]
    return changed
