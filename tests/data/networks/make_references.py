"""Make `references.safetensors`: what diffusers and transformers compute for the networks of `cases.py`.

Run from the root of the repository, in an environment that has both packages (made with diffusers 0.42.1,
transformers 5.23.0, torch 2.13.0 on a CPU in float32): python -m tests.data.networks.make_references
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection
from transformers import CLIPTextModel as HfClip

from tests.data.networks import cases


def unet(name: str) -> Tensor:
    config = cases.UNETS[name]
    per_level = config["num_res_blocks"][0]
    depths = config["transformer_depth"][::per_level]
    channels = config["model_channels"]
    widths = [channels * mult for mult in config["channel_mult"]]
    heads = [config["num_heads"]] * len(widths) if "num_heads" in config else [w // config["num_head_channels"] for w in widths]
    options = {
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "block_out_channels": widths,
        "layers_per_block": per_level,
        "cross_attention_dim": config["context_dim"],
        "attention_head_dim": heads,  # diffusers reads it as the number of heads
        "down_block_types": ["CrossAttnDownBlock2D" if d else "DownBlock2D" for d in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if d else "UpBlock2D" for d in reversed(depths)],
        "transformer_layers_per_block": [max(d, 1) for d in depths],
        "use_linear_projection": config.get("use_linear_in_transformer", False),
    }
    if "adm_in_channels" in config:
        options |= {"class_embed_type": "projection", "projection_class_embeddings_input_dim": config["adm_in_channels"]}
    theirs = UNet2DConditionModel(**options)
    stored = {f"model.diffusion_model.{k}": v for k, v in cases.build(name).state_dict().items()}
    converted = convert_ldm_unet_checkpoint(stored, {**theirs.config, "class_embed_type": options.get("class_embed_type")})
    theirs.load_state_dict(converted)
    inputs = cases.unet_inputs(name)
    return theirs(inputs["x"], inputs["timesteps"], inputs["context"], class_labels=inputs.get("y")).sample


def vae(name: str) -> tuple[Tensor, Tensor]:
    config = cases.VAES[name]
    widths = [config["ch"] * mult for mult in config["ch_mult"]]
    theirs = AutoencoderKL(
        block_out_channels=widths,
        down_block_types=["DownEncoderBlock2D"] * len(widths),
        up_block_types=["UpDecoderBlock2D"] * len(widths),
        layers_per_block=config["num_res_blocks"],
        latent_channels=config["z_channels"],
        use_quant_conv=config["use_quant"],
        use_post_quant_conv=config["use_quant"],
    )
    theirs.load_state_dict(convert_ldm_vae_checkpoint(dict(cases.build(name).state_dict()), theirs.config))
    inputs = cases.vae_inputs(name)
    return theirs.encode(inputs["pixels"]).latent_dist.mean, theirs.decode(inputs["latent"]).sample


def vae_names() -> list[tuple[str, str]]:
    """(name in a checkpoint, diffusers' name) of every tensor of the case vae_4: a marker per tensor is sent through."""
    config = cases.VAES["vae_4"]
    ours = cases.build("vae_4").state_dict()
    marked = {name: torch.full_like(tensor, i) for i, (name, tensor) in enumerate(ours.items())}
    widths = [config["ch"] * mult for mult in config["ch_mult"]]
    theirs = AutoencoderKL(
        block_out_channels=widths,
        down_block_types=["DownEncoderBlock2D"] * len(widths),
        up_block_types=["UpDecoderBlock2D"] * len(widths),
        layers_per_block=config["num_res_blocks"],
    )
    converted = convert_ldm_vae_checkpoint(marked, theirs.config)
    names = list(ours)
    return sorted((names[int(tensor.flatten()[0])], name) for name, tensor in converted.items())


def clip(name: str) -> dict[str, Tensor]:
    config = cases.CLIPS[name]
    kind = HfClip if config.projection_dim is None else CLIPTextModelWithProjection
    theirs = kind(
        CLIPTextConfig(
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            hidden_act=config.hidden_act,
            vocab_size=config.vocab_size,
            max_position_embeddings=config.max_position_embeddings,
            eos_token_id=config.end_token,
            bos_token_id=config.end_token - 1,
            pad_token_id=0,
            projection_dim=config.projection_dim or config.hidden_size,
        )
    )
    wanted = theirs.state_dict()
    ours = cases.build(name).state_dict()
    prefix = "" if any(k.startswith("text_model.") for k in wanted) else "text_model."
    theirs.load_state_dict({k.removeprefix(prefix): v for k, v in ours.items()})
    out = theirs(cases.CLIP_IDS, output_hidden_states=True)
    found = {"last": out.last_hidden_state, "before_last": out.hidden_states[-2]}
    found["pooled"] = out.text_embeds if config.projection_dim is not None else out.pooler_output
    return found


@torch.no_grad()
def main() -> None:
    found: dict[str, Tensor] = {}
    for name in cases.UNETS:
        found[name] = unet(name)
    for name in cases.VAES:
        found[f"{name}/encode"], found[f"{name}/decode"] = vae(name)
    for name in cases.CLIPS:
        found |= {f"{name}/{key}": value for key, value in clip(name).items()}
    Path(__file__).with_name("vae_names.json").write_text(json.dumps(vae_names(), indent=0) + "\n")
    save_file({k: v.contiguous() for k, v in found.items()}, Path(__file__).with_name("references.safetensors"))


if __name__ == "__main__":
    main()
