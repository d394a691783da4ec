"""Solvers that re-use the slopes of earlier steps: Adams-Bashforth in several clothes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from comfy.k_diffusion.common import Callback, Model, Options, Run


def adams_weights(times: Sequence[float], start: float, end: float) -> list[float]:
    """Integrals from start to end of the Lagrange basis over `times`: the weights of Adams-Bashforth on any grid."""
    points, weights = np.polynomial.legendre.leggauss(len(times) // 2 + 1)  # exact for the basis's degree
    at = (end - start) / 2 * points + (end + start) / 2
    result = []
    for j, mine in enumerate(times):
        basis = np.ones_like(at)
        for k, other in enumerate(times):
            if k != j:
                basis = basis * (at - other) / (mine - other)
        result.append(float((end - start) / 2 * (weights * basis).sum()))
    return result


def weighted(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The sum of weight x tensor, at least one."""
    total = tensors[0] * weights[0]
    for tensor, weight in zip(tensors[1:], weights[1:]):
        total = total + tensor * weight
    return total


def sample_lms(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    order: int = 4,
) -> Tensor:
    """Adams-Bashforth of up to `order` on the actual grid. Liu et al. 2022, arXiv:2202.09778."""
    run = Run(model, x, sigmas, extra_args, callback)
    slopes: list[Tensor] = []
    for i, sigma, sigma_next in run.pairs():
        x0 = run.denoise(x, sigma)
        run.report(i, x, x0)
        slopes = [(x - x0) / sigma, *slopes[: order - 1]]
        if sigma_next == 0:
            x = x0
        else:
            times = [run.sigmas[i - k] for k in range(len(slopes))]
            x = x + weighted(slopes, adams_weights(times, sigma, sigma_next))
    return x


#: Adams-Bashforth of order 1 to 4 for equal steps, newest slope first
EQUAL_STEPS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def sample_ipndm(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    max_order: int = 4,
) -> Tensor:
    """Adams-Bashforth with the weights of equal steps. Zhang and Chen 2022, arXiv:2204.13902. Reports the initial x throughout."""
    run = Run(model, x, sigmas, extra_args, callback)
    start, slopes = x, list[Tensor]()
    for i, sigma, sigma_next in run.pairs():
        x0 = run.denoise(x, sigma)
        run.report(i, start, x0)
        slopes = [(x - x0) / sigma, *slopes[: max_order - 1]]
        x = x0 if sigma_next == 0 else x + weighted(slopes, EQUAL_STEPS[len(slopes) - 1]) * (sigma_next - sigma)
    return x


def variable_weights(steps: Sequence[float]) -> list[float]:
    """Weights of up to four slopes, newest first, as iPNDM-v was published and is recorded (contract B.3).

    steps  the coming step, then those before it: h, h_1, h_2, h_3, one per slope. Orders 1 and 2 are Adams-Bashforth; the
    bends of orders 3 and 4 are not its own: the third's bracket closes around the whole product.
    """
    h = steps[0]
    if len(steps) == 1:
        return [1.0]
    h_1 = steps[1]
    first = [(2 + h / h_1) / 2, -(h / h_1) / 2]
    if len(steps) == 2:
        return first
    h_2 = steps[2]
    bend = (1 - h / (3 * (h + h_1)) * (h * (h + h_1)) / (h_1 * (h_1 + h_2))) / 2
    second = [first[0] + bend, first[1] - (1 + h_1 / h_2) * bend, bend * h_1 / h_2]
    if len(steps) == 3:
        return second
    h_3 = steps[3]
    share = (1 - h / (3 * (h + h_1))) / 2 + (1 - h / (2 * (h + h_1))) * h / (6 * (h + h_1 + h_2))
    curl = share * (h * (h + h_1) * (h + h_1 + h_2)) / (h_1 * (h_1 + h_2) * (h_1 + h_2 + h_3))
    q = h_1 * (h_1 + h_2) / (h_2 * (h_2 + h_3))
    return [
        second[0] + curl,
        second[1] - (1 + h_1 / h_2 + q) * curl,
        second[2] + (h_1 / h_2 + q * (1 + h_2 / h_3)) * curl,
        -curl * q * h_1 / h_2,
    ]


def sample_ipndm_v(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    max_order: int = 4,
) -> Tensor:
    """Adams-Bashforth with the weights of the actual steps. arXiv:2204.13902, 2312.00094. Reports the initial x throughout."""
    run = Run(model, x, sigmas, extra_args, callback)
    start, slopes = x, list[Tensor]()
    for i, sigma, sigma_next in run.pairs():
        x0 = run.denoise(x, sigma)
        run.report(i, start, x0)
        slopes = [(x - x0) / sigma, *slopes[: max_order - 1]]
        if sigma_next == 0:
            x = x0
        else:
            steps = [run.sigmas[i - k + 1] - run.sigmas[i - k] for k in range(len(slopes))]
            x = x + weighted(slopes, variable_weights(steps)) * (sigma_next - sigma)
    return x
