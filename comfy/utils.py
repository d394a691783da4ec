"""The ecosystem's helpers at the path where custom nodes import them; bodies forward (contract: custom-nodes.md section 6).

Pictures here are (b, c, h, w) unless a name says otherwise.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

import comfy.control
from comfy import images
from comfy.compat.state_dicts import (
    calculate_parameters,
    convert_sd_to,
    copy_to_param,
    get_attr,
    set_attr,
    set_attr_param,
    state_dict_key_replace,
    state_dict_prefix_replace,
    weight_dtype,
)
from comfy.errors import InputUnusable, WeightFileInvalid
from comfy.images import (
    bislerp,
    common_upscale,
    get_tiled_scale_steps,
    lanczos,
    repeat_to_batch_size,
    resize_to_batch_size,
    tiled_scale,
    tiled_scale_multidim,
)
from comfy.replaceable import replaceable, write_through

__all__ = [
    "PROGRESS_BAR_ENABLED",
    "PROGRESS_BAR_HOOK",
    "ProgressBar",
    "bislerp",
    "calculate_parameters",
    "common_upscale",
    "convert_sd_to",
    "copy_to_param",
    "get_attr",
    "get_tiled_scale_steps",
    "lanczos",
    "load_torch_file",
    "repeat_to_batch_size",
    "reshape_mask",
    "resize_to_batch_size",
    "safetensors_header",
    "save_torch_file",
    "set_attr",
    "set_attr_param",
    "set_progress_bar_enabled",
    "set_progress_bar_global_hook",
    "state_dict_key_replace",
    "state_dict_prefix_replace",
    "tiled_scale",
    "tiled_scale_multidim",
    "unet_to_diffusers",
    "weight_dtype",
]

#: (value, total, preview, prompt_id=None, node_id=None)
ProgressHook = Callable[..., None]

#: read by samplers when they draw a bar in the terminal
PROGRESS_BAR_ENABLED = True


def set_progress_bar_enabled(enabled: bool) -> None:
    """Whether terminal bars are drawn."""
    global PROGRESS_BAR_ENABLED
    PROGRESS_BAR_ENABLED = enabled


def _report_to_job(value: float, total: float, preview: Any = None, prompt_id: str | None = None, node_id: str | None = None) -> None:
    """Pass progress on to the calling context's job; also the place where a stopped job notices. Silent outside jobs."""
    control = comfy.control.current()
    if control is not None:
        control.check()
        control.progress(value, total, preview, node_id if node_id is not None else control.node_id)


#: one function for the whole process: it finds the job through the calling context, so lanes do not mix
PROGRESS_BAR_HOOK: ProgressHook | None = _report_to_job


def set_progress_bar_global_hook(function: ProgressHook | None) -> None:
    """Have new bars call `function` instead of the running job's sink."""
    global PROGRESS_BAR_HOOK
    PROGRESS_BAR_HOOK = function


class ProgressBar:
    """Progress of one node's call. The hook is the one that is set when the bar is made."""

    def __init__(self, total: float, node_id: str | None = None) -> None:
        self.total = total
        self.current: float = 0
        self.hook = PROGRESS_BAR_HOOK
        self.node_id = node_id

    def update_absolute(self, value: float, total: float | None = None, preview: Any = None) -> None:
        """Say where the work is; `value` is capped at the total. Raises Interrupted when the job was stopped."""
        if total is not None:
            self.total = total
        self.current = min(value, self.total)
        if self.hook is not None:
            self.hook(self.current, self.total, preview, node_id=self.node_id)

    def update(self, value: float) -> None:
        """Add to where the work is."""
        self.update_absolute(self.current + value)


@replaceable("comfy.utils.load_torch_file")
def load_torch_file(
    ckpt: str | os.PathLike[str], safe_load: bool = False, device: torch.device | str | None = None, return_metadata: bool = False
) -> Any:
    """The tensors of a weight file by name, on the CPU or on `device`; with `return_metadata`, (tensors, metadata or None).

    Safetensors by our own header reader; pickles only with weights (`safe_load` is always on), unwrapped from a
    `state_dict` key or a single nested dict. Raises WeightFileMissing, WeightFileInvalid.
    """
    from comfy.compat.weight_files import read_tensors

    tensors, metadata = read_tensors(Path(ckpt), device=torch.device(device) if device is not None else None)
    return (tensors, metadata) if return_metadata else tensors


def save_torch_file(sd: Mapping[str, torch.Tensor], ckpt: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors."""
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in sd.items()}, ckpt, metadata=dict(metadata) if metadata else None)


def safetensors_header(safetensors_path: str | os.PathLike[str], max_size: int = 100 * 1024 * 1024) -> bytes | None:
    """The raw JSON header of a safetensors file; None when it is larger than `max_size` bytes."""
    with open(safetensors_path, "rb") as file:
        head = file.read(8)
        if len(head) < 8:
            raise WeightFileInvalid("The file is shorter than a header.", file=os.path.basename(os.fspath(safetensors_path)))
        length = int.from_bytes(head, "little")
        return None if length > max_size else file.read(length)


def unet_to_diffusers(unet_config: Mapping[str, Any]) -> dict[str, str]:
    """Tensor name in diffusers' layout -> name in a checkpoint, for a UNet of this structure (`model.model_config.unet_config`).

    Names every place where such a UNet may have a tensor. Raises InputUnusable when the structure is not an SD UNet's.
    """
    from comfy.models.diffusers_unet import unet_modules
    from comfy.models.family import UNetConfig

    fields = UNetConfig.__dataclass_fields__
    try:
        config = UNetConfig(**{name: value for name, value in unet_config.items() if name in fields})
    except TypeError as error:
        raise InputUnusable("This is no structure of an SD UNet.", given=sorted(map(str, unet_config))) from error
    return {theirs + end: ours + end for theirs, ours in unet_modules(config) for end in (".weight", ".bias")}


def reshape_mask(input_mask: torch.Tensor, output_shape: tuple[int, ...] | torch.Size) -> torch.Tensor:
    """A mask as large as a latent: resized to its spatial size, repeated over channels and batch (goldens README, C).

    input_mask    (h, w), (b, h, w) or (b, c, h, w)
    output_shape  (b, c, h, w) or (b, c, t, h, w)
    """
    dims = len(output_shape) - 2
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[dims]
    if dims == 1:
        mask = input_mask.reshape((-1, 1, input_mask.shape[-1]))
    elif dims == 3 and input_mask.ndim < 5:
        mask = input_mask.reshape((1, 1, -1, *input_mask.shape[-2:]))
    elif input_mask.ndim < len(output_shape):
        mask = input_mask.reshape((-1, 1, *input_mask.shape[-2:]))
    else:
        mask = input_mask
    mask = torch.nn.functional.interpolate(mask, size=tuple(output_shape[2:]), mode=mode)
    if mask.shape[1] < output_shape[1]:
        mask = mask.repeat((1, math.ceil(output_shape[1] / mask.shape[1])) + (1,) * dims)[:, : output_shape[1]]
    return images.repeat_to_batch_size(mask, output_shape[0])


write_through(__name__)
