"""Modules built on the meta device -> modules whose parameters are given tensors, without a copy."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn

from comfy.errors import WeightFileInvalid

log = logging.getLogger(__name__)


def build_module(
    build: Callable[[], nn.Module],
    tensors: Mapping[str, Tensor],
    device: torch.device,
    *,
    file_name: str,
    optional: Collection[str] = (),
) -> tuple[nn.Module, tuple[str, ...]]:
    """(the module in evaluation mode, names of parameters that `tensors` lacks and that are not in `optional`).

    build     makes the module; called under the meta device, so it allocates nothing
    tensors   run-time name -> tensor on `device`; becomes the parameter or buffer of that name as it is, dtype included

    Names that the module does not have are ignored. After the assignment each submodule with a method
    `materialize(device)` is asked to compute what no file holds (position ids, masks, rotary tables); parameters still
    missing then become zeros, with one warning. Raises WeightFileInvalid when a tensor has another shape than its
    parameter, TypeError when a buffer is neither in `tensors` nor computed: a mistake in the module.
    """
    with torch.inference_mode(False), torch.no_grad():
        with torch.device("meta"):
            module = build()
        missing = _assign(module, tensors, file_name)
        for part in list(module.modules()):
            materialize = getattr(part, "materialize", None)
            if callable(materialize):
                materialize(device)
        _fill_rest(module, _usual_dtype(tensors), device)
    missing = tuple(name for name in missing if name not in optional)
    if missing:
        log.warning("%s lacks %d tensors, which are zero now: %s", file_name, len(missing), ", ".join(missing[:8]))
    return module.eval().requires_grad_(False), missing


def _assign(module: nn.Module, tensors: Mapping[str, Tensor], file_name: str) -> tuple[str, ...]:
    """Put `tensors` into the module; returns the names of parameters that none of them gave, tied ones followed."""
    given: dict[int, nn.Parameter] = {}  # id of the meta parameter -> what replaced it, under whichever of its names
    absent: list[tuple[str, nn.Module, str, nn.Parameter]] = []
    for prefix, part in module.named_modules(remove_duplicate=False):
        for name, parameter in list(part._parameters.items()):
            full = f"{prefix}.{name}" if prefix else name
            if parameter is None or not parameter.is_meta:
                continue
            if full in tensors:
                fresh = nn.Parameter(_fitting(tensors[full], parameter, full, file_name), requires_grad=False)
                part._parameters[name] = given[id(parameter)] = fresh
            else:
                absent.append((full, part, name, parameter))
        for name, buffer in list(part._buffers.items()):
            full = f"{prefix}.{name}" if prefix else name
            if buffer is not None and full in tensors:
                part._buffers[name] = _fitting(tensors[full], buffer, full, file_name)
    missing = []
    for full, part, name, parameter in absent:
        now = part._parameters[name]
        if now is None or not now.is_meta:
            continue  # the same module was reached, and filled, under another name
        if id(parameter) in given:
            part._parameters[name] = given[id(parameter)]
        else:
            missing.append(full)
    return tuple(missing)


def _fitting(tensor: Tensor, wanted: Tensor, name: str, file_name: str) -> Tensor:
    if tensor.shape != wanted.shape:
        raise WeightFileInvalid(
            "A tensor does not fit the model.", file=file_name, tensor=name, shape=list(tensor.shape), expected_shape=list(wanted.shape)
        )
    return tensor


def _usual_dtype(tensors: Mapping[str, Tensor]) -> torch.dtype:
    counts = Counter(tensor.dtype for tensor in tensors.values() if tensor.is_floating_point() and tensor.dtype.itemsize > 1)
    return counts.most_common(1)[0][0] if counts else torch.float32


def _fill_rest(module: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    for prefix, part in module.named_modules():
        for name, parameter in list(part._parameters.items()):
            if parameter is not None and parameter.is_meta:
                zeros = torch.zeros(parameter.shape, dtype=dtype, device=device)
                part._parameters[name] = nn.Parameter(zeros, requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None and buffer.is_meta:
                raise TypeError(f"{type(part).__name__} at {prefix!r} must compute its buffer {name!r} in materialize(device)")
