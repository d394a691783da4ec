"""Which names in a LoRA file mean which weight of a model. Contract: goldens README, section H.2; models.md section 8.

A key map gives for each name, without the adapter's suffix, the weight key that patches use. The tables are data of the
trainers (kohya, diffusers, LyCORIS, OneTrainer): one weight answers to several names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from comfy.models.component import network_shapes
from comfy.models.diffusers_unet import unet_modules
from comfy.models.family import UNetConfig

#: name in a file -> weight key, or (key, (dimension, start, length)[, function])
KeyMap = dict[str, Any]
UNET = "diffusion_model."
_TEXT = ".transformer."
_CLIP_PARTS = ("mlp.fc1", "mlp.fc2", "self_attn.k_proj", "self_attn.q_proj", "self_attn.v_proj", "self_attn.out_proj")
CLIP_LAYERS = 32


def keys_of(handle: Any) -> KeyMap:
    """The key map of a MODEL's or CLIP's components. Empty for a handle over a plain module."""
    source = getattr(handle, "source", None) or getattr(getattr(handle, "patcher", None), "source", None)
    found: KeyMap = {}
    if source is None:
        return found
    text: list[str] = []
    for prefix, component in source.components().items():
        keys = [prefix + name for name in network_shapes(component.config)]
        if isinstance(component.config, UNetConfig):
            found |= unet_keys(keys, component.config)
        else:
            text += keys
    return {**found, **text_keys(text)}


def unet_keys(keys: Iterable[str], config: UNetConfig) -> KeyMap:
    """The key map of a UNet whose weight keys are `keys`."""
    found = denoiser_keys(keys)
    for theirs, ours in unet_modules(config):
        key = f"{UNET}{ours}.weight"
        flat = theirs.replace(".", "_")
        found[f"lora_unet_{flat}"] = found[f"lycoris_{flat}"] = key
        spelled = theirs.replace(".to_", ".processor.to_").removesuffix(".0") if ".to_" in theirs else theirs
        found[spelled] = found["unet." + spelled] = key
    return found


def denoiser_keys(keys: Iterable[str]) -> KeyMap:
    """The names that any denoiser's weights answer to, whatever its architecture."""
    found: KeyMap = {}
    for key in keys:
        if not key.startswith(UNET):
            continue
        if key.endswith(".weight"):
            body = key[len(UNET) : -len(".weight")]
            found["lora_unet_" + body.replace(".", "_")] = key
            found[UNET + body] = key
        else:
            found[key] = key
    return found


def text_keys(keys: Iterable[str]) -> KeyMap:
    """The key map of text encoders: keys such as `clip_l.transformer.text_model.…`."""
    known = dict.fromkeys(keys)
    found: KeyMap = {f"text_encoders.{key[: -len('.weight')]}": key for key in known if key.endswith(".weight")}
    streams = {key.split(_TEXT)[0] for key in known}
    for stream in ("clip_h", "clip_l", "clip_g"):
        if stream in streams:
            found |= _clip_keys(stream, known, second="clip_l" in streams)
    if "clip_g" in streams:
        _add(found, known, "clip_g.transformer.text_projection.weight", ("lora_prior_te_text_projection", "lora_te2_text_projection"))
    _add(found, known, "clip_l.transformer.text_projection.weight", ("lora_te1_text_projection",))
    if "t5xxl" in streams:
        found |= _t5_keys(known, both=("clip_l" in streams and "clip_g" not in streams))
    return found


def _clip_keys(stream: str, known: Mapping[str, Any], second: bool) -> KeyMap:
    """kohya's and diffusers' names of one CLIP; CLIP-G is the second encoder where CLIP-L is the first."""
    found: KeyMap = {}
    for layer in range(CLIP_LAYERS):
        for part in _CLIP_PARTS:
            path = f"text_model.encoder.layers.{layer}.{part}"
            flat = path.replace(".", "_")
            names: tuple[str, ...]
            if stream != "clip_g":
                names = (f"lora_te_{flat}", f"lora_te1_{flat}", f"text_encoder.{path}")
            elif second:
                names = (f"lora_te2_{flat}", f"text_encoder_2.{path}")
            else:
                names = (f"lora_te_{flat}", f"lora_prior_te_{flat}", f"text_encoder.{path}")
            _add(found, known, f"{stream}{_TEXT}{path}.weight", names)
    return found


def _t5_keys(known: Mapping[str, Any], both: bool) -> KeyMap:
    """T5 is the third encoder of SD3 and the second of Flux, where trainers use both numbers."""
    found: KeyMap = {}
    start = "t5xxl" + _TEXT
    for key in known:
        if key.startswith(start) and key.endswith(".weight"):
            flat = key[len(start) : -len(".weight")].replace(".", "_")
            found["lora_te3_" + flat] = key
            if both:
                found["lora_te2_" + flat] = key
    return found


def _add(found: KeyMap, known: Mapping[str, Any], key: str, names: Iterable[str]) -> None:
    if key in known:
        found.update(dict.fromkeys(names, key))
