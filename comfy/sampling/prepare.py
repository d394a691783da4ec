"""From what nodes hand over to what a sampling run works on: conditioning entries, masks, latents.

Where custom nodes look for these: `comfy.sampler_helpers`, `comfy.samplers`.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from comfy.device import context
from comfy.replaceable import replaceable
from comfy.sampling import extension
from comfy.sampling.areas import Entry, add_area_twins, resolve_areas_and_masks, with_timesteps
from comfy.sampling.conds import CONDRegular, repeat_to_batch

Conds = dict[str, list[Entry]]


def convert_cond(cond: Sequence[Any]) -> list[Entry]:
    """CONDITIONING, a list of [tokens, dict] -> entries: the dict with "cross_attn", "model_conds" and an id of its own."""
    entries = []
    for tokens, values in cond:
        entry = dict(values)
        if tokens is not None:
            entry["cross_attn"] = tokens
        entry["model_conds"] = dict(entry.get("model_conds", {}))
        entry["uuid"] = uuid.uuid4()
        entries.append(entry)
    return entries


def prepare_mask(noise_mask: Tensor, shape: Sequence[int], device: Any) -> Tensor:
    """A noise mask in the shape of the latent, on `device`: resized bilinearly, repeated over channels, cyclically over the batch."""
    return reshape_mask(noise_mask, shape).to(device)


def reshape_mask(mask: Tensor, shape: Sequence[int]) -> Tensor:
    """mask (h, w), (b, h, w) or (b, 1, h, w) -> `shape` (b, c, ...) (contract C: trilinear over time for video)."""
    shape = tuple(shape)
    dims = len(shape) - 2
    if dims == 1:
        mask, mode = mask.reshape(-1, 1, mask.shape[-1]), "linear"
    elif dims == 2:
        mask, mode = mask.reshape(-1, 1, *mask.shape[-2:]), "bilinear"
    else:
        if mask.ndim < 5:
            mask = mask.reshape(1, 1, -1, *mask.shape[-2:])
        mode = "trilinear"
    mask = torch.nn.functional.interpolate(mask.float(), size=shape[2:], mode=mode, align_corners=False)
    if mask.shape[1] < shape[1]:
        mask = mask.repeat((1, shape[1]) + (1,) * dims)[:, : shape[1]]
    return repeat_to_batch(mask, shape[0])


def fix_empty_latent_channels(model: Any, latent_image: Tensor) -> Tensor:
    """An all-zero latent in the model's channel count; a time axis for models that have one. Other latents are left alone."""
    latent_format = model.get_model_object("latent_format")
    channels = getattr(latent_format, "latent_channels", latent_image.shape[1])
    if channels != latent_image.shape[1] and not bool(latent_image.any()):
        latent_image = torch.zeros_like(latent_image[:, :1]).repeat((1, channels) + (1,) * (latent_image.ndim - 2))
    if getattr(latent_format, "latent_dimensions", 2) == 3 and latent_image.ndim == 4:
        latent_image = latent_image.unsqueeze(2)
    return latent_image


def encode_model_conds(function: Any, entries: Sequence[Entry], noise: Tensor, device: Any, prompt_type: str, **kwargs: Any) -> list[Entry]:
    """Ask the family (`extra_conds`) for each entry's model values; those of the entry itself are kept beside them.

    width and height default to 8 pixels per latent cell.
    """
    ready = []
    for given in entries:
        entry = dict(given)
        params: dict[str, Any] = {**entry, "device": device, "noise": noise}
        params.setdefault("width", noise.shape[-1] * 8)
        params.setdefault("height", (noise.shape[2] if noise.ndim < 5 else noise.shape[3]) * 8)
        params.setdefault("prompt_type", prompt_type)
        params.update({name: value for name, value in kwargs.items() if name not in params})
        entry["model_conds"] = {**entry.get("model_conds", {}), **function(**params)}
        ready.append(entry)
    return ready


def process_conds(
    model: Any,
    noise: Tensor,
    conds: Conds,
    device: Any,
    latent_image: Tensor | None = None,
    denoise_mask: Tensor | None = None,
    seed: int | None = None,
) -> Conds:
    """Everything that is done to the entries once, before the first step: areas, ranges, model values, twins, control."""
    model_sampling = model.model_sampling
    ready: Conds = {}
    for side, entries in conds.items():
        entries = with_timesteps(resolve_areas_and_masks(entries, noise.shape[2:], device), model_sampling)
        if hasattr(model, "extra_conds"):
            entries = encode_model_conds(
                model.extra_conds, entries, noise, device, side, latent_image=latent_image, denoise_mask=denoise_mask, seed=seed
            )
        else:
            entries = [_plain(entry, device) for entry in entries]
        ready[side] = entries
    ready = add_area_twins(ready)
    for entries in ready.values():
        for entry in entries:
            if entry.get("control") is not None:
                entry["control"].pre_run(model, model_sampling.percent_to_sigma)
    if "positive" in ready:
        share_with_equal_areas(ready["positive"], ready, "control")
    return ready


def _plain(entry: Entry, device: Any) -> Entry:
    if "cross_attn" not in entry:
        return entry
    return {**entry, "model_conds": {"c_crossattn": CONDRegular(entry["cross_attn"].to(device)), **entry.get("model_conds", {})}}


def share_with_equal_areas(entries: Sequence[Entry], conds: Conds, name: str) -> None:
    """Give a positive entry's `name` (a ControlNet, say) to entries of the other sides that lack one.

    The i-th positive entry that has one serves the i-th entry of each other list over the same area, cyclically. Entries
    whose `<name>_apply_to_uncond` is False keep theirs: their nodes gave the other sides one themselves, or none.
    """
    givers = [entry for entry in entries if entry.get(name) is not None and entry.get(f"{name}_apply_to_uncond", True)]
    if not givers:
        return
    for side, others in conds.items():
        if others is entries or side == "positive":
            continue
        takers = [entry for entry in others if entry.get(name) is None]
        for i, taker in enumerate(takers):
            same = [giver for giver in givers if giver.get("area") == taker.get("area")]
            if same:
                taker[name] = same[i % len(same)][name]


def get_models_from_cond(cond: Sequence[Entry], kind: str) -> list[Any]:
    """The models that entries carry under `kind` ("control", "gligen")."""
    found: list[Any] = []
    for entry in cond:
        carried = entry.get(kind)
        for model in carried if isinstance(carried, list) else [carried]:
            if model is not None and all(model is not other for other in found):
                found.append(model)
    return found


def get_additional_models(conds: Conds, dtype: Any) -> tuple[list[Any], int]:
    """The further models that a run needs (ControlNets and what they load, GLIGEN), and the memory they ask for, in bytes."""
    models: list[Any] = []
    needed = 0
    for entries in conds.values():
        for control in get_models_from_cond(entries, "control"):
            models.extend(model for model in control.get_models() if all(model is not other for other in models))
            needed += control.inference_memory_requirements(dtype)
        for gligen in get_models_from_cond(entries, "gligen"):
            if all(gligen[1] is not other for other in models):
                models.append(gligen[1])
    return models, needed


def prepare_sampling(
    model: Any, noise_shape: Sequence[int], conds: Conds, model_options: dict[str, Any] | None = None
) -> tuple[Any, Conds, list[Any]]:
    """Bring the model and what the conditioning carries to the lane's device: (the lane's model, conds, the other models)."""
    executor = extension.WrapperExecutor.new_executor(
        _prepare_sampling,
        extension.get_all_wrappers(extension.WrappersMP.PREPARE_SAMPLING, model_options or {}, is_model_options=True),
    )
    prepared: tuple[Any, Conds, list[Any]] = executor.execute(model, noise_shape, conds, model_options=model_options)
    return prepared


def _prepare_sampling(
    model: Any, noise_shape: Sequence[int], conds: Conds, model_options: dict[str, Any] | None = None
) -> tuple[Any, Conds, list[Any]]:
    models, memory_required = get_additional_models(conds, None)
    load_models_gpu([model, *models], memory_required)
    return model.model, conds, models


@replaceable("comfy.model_management.load_models_gpu")
def load_models_gpu(
    models: Sequence[Any],
    memory_required: int = 0,
    force_patch_weights: bool = False,
    minimum_memory_required: int | None = None,
    force_full_load: bool = False,
) -> None:
    """Bring MODELs to the calling lane's device. Weights of files come on first use, a pack's own module now; all are listed."""
    lane = context.current_or_none()
    if lane is None:
        return
    for model in models:
        if hasattr(model, "leave_device"):
            lane.handles.add(model)
            if model.source is None:
                model.load()


def cleanup_additional_models(models: Sequence[Any]) -> None:
    """Let the further models drop what they kept for the run."""
    for model in models:
        if hasattr(model, "cleanup"):
            model.cleanup()


def cleanup_models(conds: Conds, models: Sequence[Any]) -> None:
    """End of a run: the further models, and the ControlNets that entries carry, drop what they kept."""
    cleanup_additional_models(models)
    for entries in conds.values():
        for control in get_models_from_cond(entries, "control"):
            control.cleanup()


def prepare_model_patcher(model: Any, conds: Conds, model_options: dict[str, Any]) -> dict[str, Any]:
    """Register the entries' hooks with a MODEL that knows hooks; returns `model_options`."""
    if hasattr(model, "register_all_hook_patches"):
        hooks = [entry["hooks"] for entries in conds.values() for entry in entries if entry.get("hooks") is not None]
        if hooks:
            model.register_all_hook_patches(hooks, model_options)
    return model_options
