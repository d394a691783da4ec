"""The small networks whose outputs lie in `references.safetensors`, shared by the script that made them and the tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from comfy.ldm.models.autoencoder import AutoencodingEngine
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.text_encoders.clip_text import ClipTextConfig, ClipTextModel
from tests.hashed_weights import hash_state_dict, hashed

UNETS: dict[str, dict[str, Any]] = {
    # convolutional proj_in, 8 heads, three levels, an odd size on the way down
    "unet_sd1": {
        "in_channels": 4,
        "model_channels": 32,
        "out_channels": 4,
        "num_res_blocks": [2, 2, 2],
        "channel_mult": [1, 2, 2],
        "transformer_depth": [1, 1, 1, 1, 0, 0],
        "transformer_depth_middle": 1,
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 0, 0, 0],
        "context_dim": 64,
        "num_heads": 8,
    },
    # nine channels in, as for inpainting
    "unet_inpaint": {
        "in_channels": 9,
        "model_channels": 32,
        "out_channels": 4,
        "num_res_blocks": [1, 1],
        "channel_mult": [1, 2],
        "transformer_depth": [1, 0],
        "transformer_depth_middle": 1,
        "transformer_depth_output": [1, 1, 0, 0],
        "context_dim": 32,
        "num_heads": 8,
    },
    # linear proj_in, 64 channels per head, depth by level, vector conditioning
    "unet_sdxl": {
        "in_channels": 4,
        "model_channels": 64,
        "out_channels": 4,
        "num_res_blocks": [1, 1],
        "channel_mult": [1, 2],
        "transformer_depth": [0, 2],
        "transformer_depth_middle": 2,
        "transformer_depth_output": [0, 0, 2, 2],
        "context_dim": 48,
        "num_head_channels": 64,
        "use_linear_in_transformer": True,
        "adm_in_channels": 40,
    },
}
VAES: dict[str, dict[str, Any]] = {
    "vae_4": {"ch": 32, "ch_mult": [1, 2, 2], "num_res_blocks": 1, "in_channels": 3, "out_ch": 3, "z_channels": 4, "use_quant": True},
    "vae_16": {"ch": 32, "ch_mult": [1, 2], "num_res_blocks": 2, "in_channels": 3, "out_ch": 3, "z_channels": 16, "use_quant": False},
}
CLIPS: dict[str, ClipTextConfig] = {
    "clip_l": ClipTextConfig(64, 128, 3, 4, "quick_gelu", vocab_size=200, end_token=199),
    "clip_g": ClipTextConfig(48, 96, 3, 3, "gelu", vocab_size=200, end_token=199, projection_dim=40),
}
CLIP_IDS = torch.tensor([[198, 5, 17, 3, 199, 199, 199], [198, 9, 8, 7, 6, 199, 0]])
CLIP_POOL_AT = torch.tensor([4, 5])


def build(name: str) -> nn.Module:
    """The network of the case `name`, with its hashed weights."""
    with torch.device("meta"):
        if name in UNETS:
            network: nn.Module = UNetModel(**UNETS[name])
        elif name in VAES:
            config = dict(VAES[name])
            use_quant = config.pop("use_quant")
            network = AutoencodingEngine(config, config["z_channels"], use_quant)
        else:
            network = ClipTextModel(CLIPS[name])
    network.load_state_dict(hash_state_dict(network), assign=True)
    return network.eval().requires_grad_(False)


def unet_inputs(name: str) -> dict[str, Tensor]:
    """Inputs of `UNetModel.forward` for the case `name`; the sizes 10×6 are odd after the first halving."""
    config = UNETS[name]
    inputs = {
        "x": hashed((2, config["in_channels"], 10, 6), 9001) * 2,
        "timesteps": torch.tensor([3.0, 871.5]),
        "context": hashed((2, 7, config["context_dim"]), 9002),
    }
    if "adm_in_channels" in config:
        inputs["y"] = hashed((2, config["adm_in_channels"]), 9003)
    return inputs


def vae_inputs(name: str) -> dict[str, Tensor]:
    """Inputs of encode and decode for the case `name`."""
    return {"pixels": hashed((1, 3, 16, 24), 9004), "latent": hashed((1, VAES[name]["z_channels"], 4, 6), 9005) * 2}
