"""From conditioning lists to one guided prediction: evaluate, weigh, combine (contract D.1).

The functions here are what custom nodes call and replace under `comfy.samplers`. `model` is a SamplingModel
(`model.py`); `conds` are lists of entries after `prepare.process_conds`; x is (b, c, ...), timestep (b,) holds sigmas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from comfy.replaceable import replaceable
from comfy.sampling import extension
from comfy.sampling.areas import Entry, Piece, piece_of
from comfy.sampling.batching import Row, batches, join, joined_input

#: keeps the division defined where nothing is active; adding it changes no weight that matters
TINY = 1e-37


@replaceable("comfy.samplers.calc_cond_batch")
def calc_cond_batch(
    model: Any, conds: Sequence[list[Entry] | None], x_in: Tensor, timestep: Tensor, model_options: dict[str, Any]
) -> list[Tensor]:
    """One prediction per conditioning list: the weighted mean of its active entries, 0 where none is active."""
    executor = extension.WrapperExecutor.new_executor(
        _calc_cond_batch, extension.get_all_wrappers(extension.WrappersMP.CALC_COND_BATCH, model_options, is_model_options=True)
    )
    predictions: list[Tensor] = executor.execute(model, conds, x_in, timestep, model_options)
    return predictions


def _calc_cond_batch(
    model: Any, conds: Sequence[list[Entry] | None], x_in: Tensor, timestep: Tensor, model_options: dict[str, Any]
) -> list[Tensor]:
    sums = [torch.zeros_like(x_in) for _ in conds]
    weights = [torch.full_like(x_in, TINY) for _ in conds]
    for batch in batches(_active_rows(conds, x_in, timestep), model):
        outputs = _evaluate(model, batch, timestep, model_options)
        for row, output in zip(batch, outputs):
            mult = row.piece.mult
            _over(sums[row.side], row.piece).add_(output * mult)
            _over(weights[row.side], row.piece).add_(mult)
    return [total.div_(weight) for total, weight in zip(sums, weights)]


def _active_rows(conds: Sequence[list[Entry] | None], x_in: Tensor, timestep: Tensor) -> list[Row]:
    rows: list[Row] = []
    for side, entries in enumerate(conds):
        pieces: list[Piece] = []
        fallbacks: list[Piece] = []
        for entry in entries or ():
            piece = piece_of(entry, x_in, timestep)
            if piece is not None:
                (fallbacks if entry.get("default") else pieces).append(piece)
        pieces.extend(_filled(fallbacks, pieces, x_in))
        rows.extend(Row(piece, side) for piece in pieces)
    return rows


def _filled(fallbacks: list[Piece], pieces: list[Piece], x_in: Tensor) -> list[Piece]:
    """The default entries, weighing what the others leave of 1; none where they leave nothing."""
    if not fallbacks:
        return []
    weight = torch.zeros_like(x_in)
    for piece in pieces:
        _over(weight, piece).add_(piece.mult)
    left = (1.0 - weight).clamp(min=0.0)
    if not bool(left.any()):
        return []
    return [piece._replace(mult=_over(left, piece)) for piece in fallbacks]


def _over(canvas: Tensor, piece: Piece) -> Tensor:
    """The view of `canvas` that the piece covers."""
    if piece.area is not None:
        dims = len(piece.area) // 2
        for axis in range(dims):
            canvas = canvas.narrow(axis + 2, piece.area[axis + dims], piece.area[axis])
    return canvas


def _evaluate(model: Any, batch: list[Row], timestep: Tensor, model_options: dict[str, Any]) -> Sequence[Tensor]:
    first = batch[0].piece
    sides = [row.side for row in batch]
    input_x = joined_input(batch)
    timestep_ = torch.cat([timestep] * len(batch)) if timestep.ndim else timestep
    c = join([row.piece.conditioning for row in batch])
    if hasattr(model, "apply_hooks"):
        model.apply_hooks(first.hooks, timestep)
    options = _transformer_options(first, batch, timestep, model_options)
    c["transformer_options"] = options
    if first.control is not None:
        c["control"] = first.control.get_control(input_x, timestep_, c, len(batch), options)
    wrapper = model_options.get("model_function_wrapper")
    if wrapper is not None:
        output = wrapper(model.apply_model, {"input": input_x, "timestep": timestep_, "c": c, "cond_or_uncond": sides})
    else:
        output = model.apply_model(input_x, timestep_, **c)
    chunks: Sequence[Tensor] = output.chunk(len(batch))
    return chunks


def _transformer_options(first: Piece, batch: list[Row], timestep: Tensor, model_options: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = dict(model_options.get("transformer_options", {}))
    if first.patches is not None:
        patches = dict(options.get("patches", {}))
        for name, added in first.patches.items():
            patches[name] = [*patches.get(name, []), *added]
        options["patches"] = patches
    options["cond_or_uncond"] = [row.side for row in batch]
    options["uuids"] = [row.piece.uuid for row in batch]
    options["sigmas"] = timestep
    return options


@replaceable("comfy.samplers.cfg_function")
def cfg_function(
    model: Any,
    cond_pred: Tensor,
    uncond_pred: Tensor,
    cond_scale: float,
    x: Tensor,
    timestep: Tensor,
    model_options: dict[str, Any] | None = None,
    cond: Any = None,
    uncond: Any = None,
) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598), or what `sampler_cfg_function` makes of the two.

    A `sampler_cfg_function` works on noise: it is given x - prediction and its result is subtracted from x.
    """
    options = {} if model_options is None else model_options
    if "sampler_cfg_function" in options:
        args = {
            "cond": x - cond_pred,
            "uncond": x - uncond_pred,
            "cond_scale": cond_scale,
            "timestep": timestep,
            "input": x,
            "sigma": timestep,
            "cond_denoised": cond_pred,
            "uncond_denoised": uncond_pred,
            "model": model,
            "model_options": options,
            "input_cond": cond,
            "input_uncond": uncond,
        }
        result = x - options["sampler_cfg_function"](args)
    else:
        result = uncond_pred + (cond_pred - uncond_pred) * cond_scale
    for function in options.get("sampler_post_cfg_function", []):
        result = function(
            {
                "denoised": result,
                "cond": cond,
                "uncond": uncond,
                "cond_scale": cond_scale,
                "model": model,
                "uncond_denoised": uncond_pred,
                "cond_denoised": cond_pred,
                "sigma": timestep,
                "model_options": options,
                "input": x,
            }
        )
    return result


@replaceable("comfy.samplers.sampling_function")
def sampling_function(
    model: Any,
    x: Tensor,
    timestep: Tensor,
    uncond: list[Entry] | None,
    cond: list[Entry] | None,
    cond_scale: float,
    model_options: dict[str, Any] | None = None,
    seed: int | None = None,
) -> Tensor:
    """The guided prediction at x. At scale 1 the negative is not evaluated and counts as 0, unless an option asks for it."""
    options = {} if model_options is None else model_options
    alone = math.isclose(cond_scale, 1.0) and not options.get("disable_cfg1_optimization", False)
    conds = [cond, None if alone else uncond]
    if "sampler_calc_cond_batch_function" in options:
        args = {"conds": conds, "input": x, "sigma": timestep, "model": model, "model_options": options}
        out = options["sampler_calc_cond_batch_function"](args)
    else:
        out = calc_cond_batch(model, conds, x, timestep, options)
    for function in options.get("sampler_pre_cfg_function", []):
        out = function(
            {
                "conds": conds,
                "conds_out": out,
                "cond_scale": cond_scale,
                "timestep": timestep,
                "input": x,
                "sigma": timestep,
                "model": model,
                "model_options": options,
            }
        )
    guided: Tensor = cfg_function(model, out[0], out[1], cond_scale, x, timestep, options, conds[0], conds[1])
    return guided
