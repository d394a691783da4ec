"""The tensors of a LoRA file -> weight patches. Suffixes and their precedence: goldens README, section H.1; models.md section 8."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch

from comfy.models.lora.adapters import GloraAdapter, LohaAdapter, LokrAdapter, LoraAdapter, WeightAdapter
from comfy.models.lora.keys import KeyMap
from comfy.models.lora.rotations import OftAdapter

log = logging.getLogger(__name__)

Take = Callable[[str], Any]
#: (up, down, mid) suffixes of a pair, the first that is there wins
PAIRS = (
    (".lora_up.weight", ".lora_down.weight", ".lora_mid.weight"),
    ("_lora.up.weight", "_lora.down.weight", None),
    (".lora_B.weight", ".lora_A.weight", None),
    (".lora.up.weight", ".lora.down.weight", None),
    (".lora_B", ".lora_A", None),
    (".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight", None),
    (".lora_B.default.weight", ".lora_A.default.weight", None),
)


def load_lora(lora: Mapping[str, Any], key_map: KeyMap, log_missing: bool = True) -> dict[Any, Any]:
    """Target of `key_map` -> value of a weight patch, for every name of it that the file has.

    lora         tensors, or `FileTensor`s, by name in the file
    log_missing  name what the file has and no weight answers to
    """
    lora = converted(lora)
    used: set[str] = set()

    def taker(name: str) -> Take:
        def take(suffix: str) -> Any:
            found = lora.get(name + suffix)
            if found is not None:
                used.add(name + suffix)
            return found

        return take

    patches: dict[Any, Any] = {}
    for name, target in key_map.items():
        take = taker(name)
        adapter = _adapter(take)
        if adapter is not None:
            patches[target] = adapter
        for suffix, kind, place in (
            (".w_norm", "diff", target),
            (".b_norm", "diff", _bias(target)),
            (".diff", "diff", target),
            (".diff_b", "diff", _bias(target)),
            (".set_weight", "set", target),
        ):
            value = take(suffix)
            if value is not None and place is not None:
                patches[place] = (kind, (value,))
    if log_missing:
        missing = sorted(set(lora) - used)
        if missing:
            log.warning("%d of a LoRA's %d tensors belong to no weight: %s", len(missing), len(lora), ", ".join(missing[:8]))
    return patches


def _bias(target: Any) -> Any:
    """The bias that belongs to a weight key, or None when the target is a part of a weight."""
    return target[: -len(".weight")] + ".bias" if isinstance(target, str) and target.endswith(".weight") else None


def _adapter(take: Take) -> WeightAdapter | None:
    alpha, dora = take(".alpha"), take(".dora_scale")
    for up_suffix, down_suffix, mid_suffix in PAIRS:
        up, down = take(up_suffix), take(down_suffix)
        if up is not None and down is not None:
            mid = take(mid_suffix) if mid_suffix else None
            return LoraAdapter(up, down, alpha, mid, dora, take(".reshape_weight"))
    hada = [take(f".hada_{part}") for part in ("w1_a", "w1_b", "w2_a", "w2_b")]
    if all(part is not None for part in hada):
        return LohaAdapter(hada[0], hada[1], hada[2], hada[3], alpha, take(".hada_t1"), take(".hada_t2"), dora)
    kron = {part: take(f".lokr_{part}") for part in ("w1", "w2", "w1_a", "w1_b", "w2_a", "w2_b", "t2")}
    first = kron["w1"] is not None or (kron["w1_a"] is not None and kron["w1_b"] is not None)
    second = kron["w2"] is not None or (kron["w2_a"] is not None and kron["w2_b"] is not None)
    if first and second:
        return LokrAdapter(**kron, alpha=alpha, dora_scale=dora)
    general = [take(f".{part}.weight") for part in ("a1", "a2", "b1", "b2")]
    if all(part is not None for part in general):
        return GloraAdapter(general[0], general[1], general[2], general[3], alpha, dora)
    blocks = take(".oft_blocks")
    return None if blocks is None else OftAdapter(blocks, alpha, take(".rescale"), dora)


def converted(lora: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tensors under the names that key maps know, for files that use names of their own."""
    if "img_in.lora_A.weight" in lora and "single_blocks.0.norm.key_norm.scale" in lora:
        return _control_names(lora)
    if any(name.startswith("lora_unet__blocks_") for name in lora):
        return {name.replace("lora_unet__blocks_", "lora_unet_blocks_"): value for name, value in lora.items()}
    return lora


def _control_names(lora: Mapping[str, Any]) -> dict[str, Any]:
    """A control LoRA of Black Forest Labs: biases are differences, norm scales replace, the input layer grows."""
    found: dict[str, Any] = {}
    for name, value in lora.items():
        name = "diffusion_model." + name
        if name.endswith(".lora_B.bias"):
            found[name.removesuffix(".lora_B.bias") + ".diff_b"] = value
        elif name.endswith(".scale"):
            found[name + ".set_weight"] = value
        else:
            found[name] = value
    up, down = found.get("diffusion_model.img_in.lora_B.weight"), found.get("diffusion_model.img_in.lora_A.weight")
    if up is not None and down is not None:
        found["diffusion_model.img_in.reshape_weight"] = torch.tensor([up.shape[0], down.shape[1]])
    return found
