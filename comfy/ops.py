"""Layer classes that our networks and custom nodes build modules from.

`disable_weight_init` skips the random initialisation that torch does (weights come from a slab); `manual_cast` also casts
its weights to the input's dtype and device at each call, for weights stored in a form that is not computed in, such as
fp8. Both are plain namespaces without state: nothing here is process-wide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: (weight) -> weight: changes a weight at the moment of its use, after the cast
WeightFunction = Callable[[Tensor], Tensor]


def cast_to(
    weight: Tensor,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    non_blocking: bool = False,
    copy: bool = False,
    stream: Any = None,
) -> Tensor:
    """`weight` in `dtype` on `device`; itself when that changes nothing and `copy` is false. `stream` is accepted only."""
    return weight.to(dtype=dtype or weight.dtype, device=device or weight.device, non_blocking=non_blocking, copy=copy)


def cast_to_input(weight: Tensor, input: Tensor, non_blocking: bool = False, copy: bool = True) -> Tensor:
    """`weight` with the dtype and on the device of `input`."""
    return cast_to(weight, input.dtype, input.device, non_blocking=non_blocking, copy=copy)


def cast_bias_weight(
    module: Any,
    input: Tensor | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    bias_dtype: torch.dtype | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    """(weight, bias) of `module` as its call needs them: cast to `input`'s dtype and device unless others are given.

    The functions in `module.weight_function` and `module.bias_function` are applied in order after the cast. An absent
    weight or bias comes back as None.
    """
    if input is not None:
        dtype = dtype or input.dtype
        device = device or input.device

    def ready(tensor: Tensor | None, to: torch.dtype | None, functions: Sequence[WeightFunction]) -> Tensor | None:
        if tensor is None:
            return None
        tensor = cast_to(tensor, to, device)
        for function in functions:
            tensor = function(tensor)
        return tensor

    weight = ready(getattr(module, "weight", None), dtype, module.weight_function)
    bias = ready(getattr(module, "bias", None), bias_dtype or dtype, module.bias_function)
    return weight, bias


class CastWeightBiasOp:
    """What every layer here adds to its torch class: no initialisation, and a casting way to run.

    comfy_cast_weights  run through `forward_comfy_cast_weights`, which packs may replace on a class
    weight_function     applied to the weight at use, likewise bias_function
    """

    comfy_cast_weights: bool = False
    weight_function: Sequence[WeightFunction] = ()
    bias_function: Sequence[WeightFunction] = ()

    def reset_parameters(self) -> None:
        """Leave the parameters as allocated: a slab provides their values."""

    def forward_comfy_cast_weights(self, *args: Any, **kwargs: Any) -> Tensor:
        """The layer's function with weight and bias from `cast_bias_weight`."""
        raise TypeError(f"{type(self).__name__} has no casting form")

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        if self.comfy_cast_weights or self.weight_function or self.bias_function:
            return self.forward_comfy_cast_weights(*args, **kwargs)
        return super().forward(*args, **kwargs)  # type: ignore[misc]


class _CastConv(CastWeightBiasOp):
    def forward_comfy_cast_weights(self, input: Tensor) -> Tensor:
        weight, bias = cast_bias_weight(self, input)
        return self._conv_forward(input, weight, bias)  # type: ignore[attr-defined]


class _CastConvTranspose(CastWeightBiasOp):
    _transposed: Callable[..., Tensor]

    def forward_comfy_cast_weights(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        weight, bias = cast_bias_weight(self, input)
        layer: Any = self
        dims = input.dim() - 2
        padding = layer._output_padding(input, output_size, layer.stride, layer.padding, layer.kernel_size, dims, layer.dilation)
        return type(self)._transposed(input, weight, bias, layer.stride, layer.padding, padding, layer.groups, layer.dilation)


class disable_weight_init:
    """Layers that compute in their weights' own dtype."""

    class Linear(CastWeightBiasOp, nn.Linear):
        def forward_comfy_cast_weights(self, input: Tensor) -> Tensor:
            weight, bias = cast_bias_weight(self, input)
            assert weight is not None
            return F.linear(input, weight, bias)

    class Conv1d(_CastConv, nn.Conv1d):
        pass

    class Conv2d(_CastConv, nn.Conv2d):
        pass

    class Conv3d(_CastConv, nn.Conv3d):
        pass

    class ConvTranspose1d(_CastConvTranspose, nn.ConvTranspose1d):
        _transposed = staticmethod(F.conv_transpose1d)

    class ConvTranspose2d(_CastConvTranspose, nn.ConvTranspose2d):
        _transposed = staticmethod(F.conv_transpose2d)

    class GroupNorm(CastWeightBiasOp, nn.GroupNorm):
        def forward_comfy_cast_weights(self, input: Tensor) -> Tensor:
            weight, bias = cast_bias_weight(self, input)
            return F.group_norm(input, self.num_groups, weight, bias, self.eps)

    class LayerNorm(CastWeightBiasOp, nn.LayerNorm):
        def forward_comfy_cast_weights(self, input: Tensor) -> Tensor:
            weight, bias = cast_bias_weight(self, input)
            return F.layer_norm(input, self.normalized_shape, weight, bias, self.eps)

    class RMSNorm(CastWeightBiasOp, nn.RMSNorm):
        bias = None

        def forward_comfy_cast_weights(self, input: Tensor) -> Tensor:
            weight, _ = cast_bias_weight(self, input)
            return F.rms_norm(input, self.normalized_shape, weight, self.eps)

    class Embedding(CastWeightBiasOp, nn.Embedding):
        bias = None

        def forward_comfy_cast_weights(self, input: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
            weight, _ = cast_bias_weight(self, dtype=out_dtype or self.weight.dtype, device=input.device)
            assert weight is not None
            return F.embedding(input, weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse)

        def forward(self, input: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
            if self.comfy_cast_weights or self.weight_function:
                return self.forward_comfy_cast_weights(input, out_dtype=out_dtype)
            rows = nn.Embedding.forward(self, input)
            return rows if out_dtype is None else rows.to(out_dtype)

    @classmethod
    def conv_nd(cls, dims: int, *args: Any, **kwargs: Any) -> Any:
        """A convolution over `dims` (1, 2 or 3) axes; ValueError for any other."""
        try:
            return {1: cls.Conv1d, 2: cls.Conv2d, 3: cls.Conv3d}[dims](*args, **kwargs)
        except KeyError:
            raise ValueError(f"no convolution over {dims} axes") from None


class manual_cast(disable_weight_init):
    """Layers that compute in their input's dtype, whatever their weights are stored in."""

    class Linear(disable_weight_init.Linear):
        comfy_cast_weights = True

    class Conv1d(disable_weight_init.Conv1d):
        comfy_cast_weights = True

    class Conv2d(disable_weight_init.Conv2d):
        comfy_cast_weights = True

    class Conv3d(disable_weight_init.Conv3d):
        comfy_cast_weights = True

    class ConvTranspose1d(disable_weight_init.ConvTranspose1d):
        comfy_cast_weights = True

    class ConvTranspose2d(disable_weight_init.ConvTranspose2d):
        comfy_cast_weights = True

    class GroupNorm(disable_weight_init.GroupNorm):
        comfy_cast_weights = True

    class LayerNorm(disable_weight_init.LayerNorm):
        comfy_cast_weights = True

    class RMSNorm(disable_weight_init.RMSNorm):
        comfy_cast_weights = True

    class Embedding(disable_weight_init.Embedding):
        comfy_cast_weights = True


#: a namespace of layer classes, as the networks take it
Operations = type[disable_weight_init]


def pick_operations(
    weight_dtype: torch.dtype | None,
    compute_dtype: torch.dtype | None,
    load_device: torch.device | None = None,
    disable_fast_fp8: bool = False,
    fp8_optimizations: bool = False,
    scaled_fp8: torch.dtype | None = None,
) -> Operations:
    """The namespace for weights stored as `weight_dtype` and computed in `compute_dtype`; the last four are accepted only."""
    if compute_dtype is None or weight_dtype == compute_dtype:
        return disable_weight_init
    return manual_cast
