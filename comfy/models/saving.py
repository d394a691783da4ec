"""Handles -> tensors under the names of released files. Contract: models.md sections 2, 6 and 9; files.md sections 2 and 3.

Weights are those of the calling lane, patches included, in the dtype that the handle's own file has them in, so a model that
was only loaded is saved as it was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from comfy.errors import InputUnusable
from comfy.models.base import PREFIX, DenoiserSource
from comfy.models.clip import TextSource
from comfy.models.component import Component
from comfy.models.family import SD1, SD2, SDXL, SDXL_REFINER

CHECKPOINT_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
#: text encoders that released files have under OpenCLIP's names
OPENCLIP_STREAMS = ("clip_h", "clip_g")
#: what modelspec calls a family
ARCHITECTURES = {
    SD1.name: "stable-diffusion-v1",
    SD2.name: "stable-diffusion-v2",
    SDXL.name: "stable-diffusion-xl-v1-base",
    SDXL_REFINER.name: "stable-diffusion-xl-v1-refiner",
}
_PREDICTS = {"eps": "epsilon", "v_prediction": "v"}
_LAYER = re.compile(r"^text_model\.encoder\.layers\.(\d+)\.(.+)$")
_LAYER_PARTS = (
    ("layer_norm1.", "ln_1."),
    ("layer_norm2.", "ln_2."),
    ("mlp.fc1.", "mlp.c_fc."),
    ("mlp.fc2.", "mlp.c_proj."),
    ("self_attn.", "attn."),
)
_OUTSIDE = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}


def checkpoint_tensors(model: Any = None, clip: Any = None, vae: Any = None) -> dict[str, Tensor]:
    """What an all-in-one file of these handles holds; None leaves a part out. On the CPU, contiguous.

    Raises InputUnusable for a handle without a file's description behind it, OutsideLane outside a lane.
    """
    found: dict[str, Tensor] = {}
    if model is not None:
        found |= {CHECKPOINT_PREFIX + name: tensor for name, tensor in denoiser_tensors(model).items()}
        found |= sampling_marks(_source(model))
    if clip is not None:
        for stream, _ in _text(clip).parts:
            tensors = encoder_tensors(clip, stream.name)
            tensors = openclip_names(tensors) if stream.name in OPENCLIP_STREAMS else tensors
            found |= {stream.prefixes[0] + name: tensor for name, tensor in tensors.items()}
    if vae is not None:
        found |= {VAE_PREFIX + name: tensor for name, tensor in vae_tensors(vae).items()}
    return found


def denoiser_tensors(model: Any) -> dict[str, Tensor]:
    """A MODEL's weights by name, without a prefix."""
    found = model.model_state_dict(PREFIX)
    return _as_stored({name[len(PREFIX) :]: tensor for name, tensor in found.items()}, _source(model).component)


def encoder_tensors(clip: Any, stream: str) -> dict[str, Tensor]:
    """The weights of one text encoder of a CLIP under Hugging Face's names."""
    prefix = f"{stream}.transformer."
    component = dict(_text(clip).components())[prefix]
    return _as_stored({name[len(prefix) :]: tensor for name, tensor in clip.patcher.model_state_dict(prefix).items()}, component)


def vae_tensors(vae: Any) -> dict[str, Tensor]:
    """A VAE's weights by name."""
    source = vae.patcher.source
    return _as_stored(vae.get_sd(), None if source is None else source.component)


def sampling_marks(source: DenoiserSource) -> dict[str, Tensor]:
    """The marker tensors that let a loader find the sampling type again."""
    settings, kind = dict(source.family.sampling_settings), source.family.sampling
    if not source.family.vector:
        return {}
    if kind == "edm":
        return {"edm_mean": torch.zeros(source.unet.out_channels), "edm_std": torch.ones(source.unet.out_channels)}
    if kind == "v_prediction_edm":
        return {f"edm_vpred.{name}": torch.tensor(float(value)) for name, value in settings.items()}
    if kind == "v_prediction":
        return {"v_pred": torch.zeros(0), **({"ztsnr": torch.zeros(0)} if settings.get("zsnr") else {})}
    return {}


def model_spec(model: Any, title: str) -> dict[str, str]:
    """The ModelSpec metadata of a checkpoint; nothing for a family that ModelSpec has no name for."""
    family = _source(model).family
    if family.name not in ARCHITECTURES:
        return {}
    found = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.implementation": "sgm",
        "modelspec.architecture": ARCHITECTURES[family.name],
        "modelspec.title": title,
    }
    predicts = _PREDICTS.get(family.sampling)
    return {**found, "modelspec.predict_key": predicts} if predicts else found


def openclip_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A CLIP text encoder under OpenCLIP's names: the reverse of `layouts`."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        layer = _LAYER.match(name)
        if layer is None:
            if name == "text_projection.weight":
                found["text_projection"] = tensor.t().contiguous()
            else:
                found[_OUTSIDE.get(name, name)] = tensor
            continue
        start, part = f"transformer.resblocks.{layer[1]}.", layer[2]
        if part.startswith("self_attn.q_proj."):
            joined = [tensors[name.replace(".q_proj.", f".{letter}_proj.")] for letter in "qkv"]
            found[f"{start}attn.in_proj_{part.rpartition('.')[2]}"] = torch.cat(joined)
        elif not part.startswith(("self_attn.k_proj.", "self_attn.v_proj.")):
            for ours, theirs in _LAYER_PARTS:
                part = part.replace(ours, theirs)
            found[start + part] = tensor
    return found


def _as_stored(tensors: Mapping[str, Tensor], component: Component | None) -> dict[str, Tensor]:
    dtypes = {} if component is None else component.stored_dtypes()
    return {name: tensor.detach().to(device="cpu", dtype=dtypes.get(name, tensor.dtype)).contiguous() for name, tensor in tensors.items()}


def _source(model: Any) -> DenoiserSource:
    source = getattr(model, "source", None)
    if not isinstance(source, DenoiserSource):
        raise InputUnusable("Only a model that was loaded from a file can be saved.", input="model")
    return source


def _text(clip: Any) -> TextSource:
    source: TextSource = clip.source
    return source
