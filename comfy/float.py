"""Edge: rounding to the 8 bit floats that weights are stored in, as custom nodes call it."""

from __future__ import annotations

import torch
from torch import Tensor

#: dtype -> (bits of the mantissa, exponent of the smallest normal number)
_FORMATS = {torch.float8_e4m3fn: (3, -6), torch.float8_e5m2: (2, -14)}


def stochastic_rounding(value: Tensor, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """`value` in `dtype`; in 8 bit each number goes to one of its two neighbours, the nearer the likelier, so that the mean stays.

    Drawn from a private generator on the value's device with `seed`: one seed, one result. What is beyond the format's range
    becomes its largest number. Other dtypes are rounded to nearest, as `Tensor.to` does.
    """
    if dtype not in _FORMATS:
        return value.to(dtype)
    mantissa_bits, least_exponent = _FORMATS[dtype]
    exact = value.to(torch.float32)
    _, exponent = torch.frexp(exact)  # |x| = m * 2**exponent, 0.5 <= m < 1
    spacing = torch.ldexp(torch.ones_like(exact), (exponent - 1).clamp(min=least_exponent) - mantissa_bits)
    generator = torch.Generator(value.device).manual_seed(seed)
    draw = torch.rand(exact.shape, generator=generator, device=value.device)
    largest = torch.finfo(dtype).max
    return (torch.floor(exact / spacing + draw) * spacing).clamp(-largest, largest).to(dtype)
