"""LoRA files on handles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy.models.lora.formats import load_lora
from comfy.models.lora.keys import keys_of
from comfy.models.lora.tensors import FileTensor


def with_lora(model: Any, clip: Any, lora: Mapping[str, Any], strength_model: float, strength_clip: float) -> tuple[Any, Any]:
    """New handles with the LoRA's patches added; None stays None.

    lora  tensors or `FileTensor`s by name. Names that fit no weight of either are told in the log once.
    """
    maps = [keys_of(handle) for handle in (model, clip)]
    patches = load_lora(lora, {**maps[0], **maps[1]})
    return _changed(model, patches, strength_model, lora), _changed(clip, patches, strength_clip, lora)


def _changed(handle: Any, patches: Mapping[Any, Any], strength: float, lora: Mapping[str, Any]) -> Any:
    if handle is None:
        return None
    changed = handle.clone()
    patcher = getattr(changed, "patcher", changed)
    before = patcher.patches_uuid
    changed.add_patches(patches, strength)
    files = {value.file if isinstance(value, FileTensor) else None for value in lora.values()}
    if len(files) == 1 and None not in files:
        patcher.name_changes(before, "lora", *files, float(strength))
    return changed
