"""Small checkpoints of the SD2 and SDXL families with random weights, in the key layouts of the released files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from comfy.models.component import network_shapes
from comfy.models.family import UNetConfig, VaeConfig
from comfy.models.random_checkpoint import random_tensor
from comfy.text_encoders.clip_text import ClipTextConfig

L, G = 64, 128
CLIP_L = ClipTextConfig(L, 2 * L, 3, 1)
CLIP_G = ClipTextConfig(G, 2 * G, 3, 2, "gelu", projection_dim=G)
VAE = VaeConfig(32, (1, 1, 2, 2), 1, 4, True)
SDXL_TEXT = (("conditioner.embedders.0.transformer.", CLIP_L, False), ("conditioner.embedders.1.model.", CLIP_G, True))
REFINER_TEXT = (("conditioner.embedders.0.model.", CLIP_G, True),)
SD2_TEXT = (("cond_stage_model.model.", CLIP_G, True),)
_OPENCLIP = (
    (r"^text_model\.encoder\.layers\.(\d+)\.", r"transformer.resblocks.\1."),
    (r"\.layer_norm(\d)\.", r".ln_\1."),
    (r"\.fc1\.", ".c_fc."),
    (r"\.fc2\.", ".c_proj."),
    (r"\.self_attn\.", ".attn."),
    (r"^text_model\.embeddings\.token_embedding\.weight$", "token_embedding.weight"),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^text_model\.final_layer_norm\.", "ln_final."),
)


def _unet(
    depth: tuple[int, ...], out: tuple[int, ...], middle: int, context: int, adm: int | None, blocks: int, ins: int = 4
) -> UNetConfig:
    levels = len(depth) // blocks
    return UNetConfig(
        in_channels=ins,
        model_channels=64,
        out_channels=4,
        num_res_blocks=(blocks,) * levels,
        channel_mult=(1,) * levels,
        transformer_depth=depth,
        transformer_depth_middle=middle,
        transformer_depth_output=tuple(reversed(out)),
        context_dim=context,
        num_head_channels=64,
        use_linear_in_transformer=True,
        adm_in_channels=adm,
        attn_precision=torch.float32 if adm is None else None,
    )


#: name -> (UNet, text encoders, marker tensors, what the family row should say)
FAMILIES: dict[str, tuple[UNetConfig, Any, dict[str, Tensor], tuple[str, str]]] = {
    "sd2": (_unet((1, 0), (0, 0, 1, 1), 1, G, None, 1), SD2_TEXT, {}, ("SD20", "eps")),
    "sd2_v": (_unet((1, 0), (0, 0, 1, 1), 1, G, None, 1), SD2_TEXT, {"wide": torch.ones(1)}, ("SD20", "v_prediction")),
    "sd2_inpaint": (_unet((1, 0), (0, 0, 1, 1), 1, G, None, 1, 9), SD2_TEXT, {"wide": torch.ones(1)}, ("SD20", "eps")),
    "sdxl": (_unet((0, 1), (1, 1, 0, 0), 1, L + G, G + 1536, 1), SDXL_TEXT, {}, ("SDXL", "eps")),
    "sdxl_inpaint": (_unet((0, 1), (1, 1, 0, 0), 1, L + G, G + 1536, 1, 9), SDXL_TEXT, {}, ("SDXL", "eps")),
    "sdxl_ip2p": (_unet((0, 1), (1, 1, 0, 0), 1, L + G, G + 1536, 1, 8), SDXL_TEXT, {}, ("SDXL", "eps")),
    "sdxl_v": (
        _unet((0, 1), (1, 1, 0, 0), 1, L + G, G + 1536, 1),
        SDXL_TEXT,
        {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)},
        ("SDXL", "v_prediction"),
    ),
    "playground": (
        _unet((0, 1), (1, 1, 0, 0), 1, L + G, G + 1536, 1),
        SDXL_TEXT,
        {"edm_mean": torch.zeros(4), "edm_std": torch.ones(4)},
        ("SDXL", "edm"),
    ),
    "cosxl": (
        _unet((0, 1), (1, 1, 0, 0), 1, L + G, G + 1536, 1),
        SDXL_TEXT,
        {"edm_vpred.sigma_max": torch.tensor(120.0), "edm_vpred.sigma_min": torch.tensor(0.002)},
        ("SDXL", "v_prediction_edm"),
    ),
    "refiner": (_unet((0, 2, 0), (0, 0, 2, 2, 0, 0), 2, G, G + 1280, 1), REFINER_TEXT, {}, ("SDXLRefiner", "eps")),
    "ssd1b": (
        _unet((0, 0, 2, 2, 4, 4), (4, 4, 10, 2, 1, 1, 0, 0, 0), -1, L + G, G + 1536, 2),
        SDXL_TEXT,
        {},
        ("SSD1B", "eps"),
    ),
    "vega": (_unet((0, 0, 1, 1, 2, 2), (2, 2, 2, 1, 1, 1, 0, 0, 0), -1, L + G, G + 1536, 2), SDXL_TEXT, {}, ("Segmind_Vega", "eps")),
    "koala_700m": (_unet((0, 2, 5), (5, 5, 2, 2, 0, 0), -2, L + G, G + 1536, 1), SDXL_TEXT, {}, ("KOALA_700M", "eps")),
    "koala_1b": (_unet((0, 2, 6), (6, 6, 2, 2, 0, 0), 6, L + G, G + 1536, 1), SDXL_TEXT, {}, ("KOALA_1B", "eps")),
}


def openclip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A CLIP text encoder's weights under OpenCLIP's names: q, k and v joined, the projection transposed."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if ".q_proj." in name:
            joined = torch.cat([tensors[name.replace(".q_proj.", f".{letter}_proj.")] for letter in "qkv"])
            found[_renamed(name.replace("self_attn.q_proj.", "attn.in_proj_"))] = joined
        elif name == "text_projection.weight":
            found["text_projection"] = tensor.t().contiguous()
        elif ".k_proj." not in name and ".v_proj." not in name:
            found[_renamed(name)] = tensor
    return found


def _renamed(name: str) -> str:
    for pattern, spelled in _OPENCLIP:
        name = re.sub(pattern, spelled, name)
    return name


def random_weights(config: Any, seed: int, prefix: str = "") -> dict[str, Tensor]:
    """A network's weights by name."""
    return {prefix + name: random_tensor(name, shape, seed).half() for name, shape in network_shapes(config).items()}


def family_tensors(name: str, seed: int = 0) -> dict[str, Tensor]:
    """Every tensor of the small checkpoint `name`, a key of FAMILIES."""
    unet, text, marks, _ = FAMILIES[name]
    found = random_weights(unet, seed, "model.diffusion_model.")
    if "wide" in marks:
        for key in list(found):
            if key.endswith("norm1.bias"):
                found[key] = torch.linspace(-1, 1, found[key].numel()).half()
    else:
        found.update(marks)
    for prefix, config, is_openclip in text:
        weights = random_weights(config, seed + 1)
        found.update({prefix + key: tensor for key, tensor in (openclip(weights) if is_openclip else weights).items()})
    return {**found, **random_weights(VAE, seed + 2, "first_stage_model.")}


def make_family_checkpoint(path: Path, name: str, seed: int = 0) -> Path:
    """Write the small checkpoint `name`."""
    save_file({key: tensor.contiguous() for key, tensor in family_tensors(name, seed).items()}, path)
    return path
