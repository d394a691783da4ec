"""SA-Solver: stochastic Adams predictor and corrector for data prediction. Xue et al. 2023, arXiv:2309.05019."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from comfy.k_diffusion.common import Callback, Model, Options, default_noise, model_sampling_of
from comfy.k_diffusion.multistep import weighted
from comfy.k_diffusion.sde import begin
from comfy.sampling.noise import NoiseSampler

#: sigma -> tau, how stochastic the step to that sigma is
Tau = Callable[[float], float]


def interval_tau(start_sigma: float, end_sigma: float, eta: float) -> Tau:
    """eta while start_sigma >= sigma >= end_sigma, else 0."""
    return lambda sigma: eta if start_sigma >= sigma >= end_sigma else 0.0


def exponential_weights(lams: Sequence[float], start: float, end: float, k: float) -> list[float]:
    """Integrals from start to end of k e^(-k (end - s)) times the Lagrange basis over `lams` (eq. 14 and 17 for constant tau)."""
    h = end - start
    moments = [-math.expm1(-k * h)]
    for power in range(1, len(lams)):
        moments.append(h**power - power / k * moments[-1])  # by parts, in u = s - start
    return [sum(c * m for c, m in zip(_basis([lam - start for lam in lams], j), moments)) for j in range(len(lams))]


def _basis(points: Sequence[float], j: int) -> list[float]:
    """Coefficients, lowest power first, of the polynomial that is 1 at points[j] and 0 at the others."""
    polynomial, scale = [1.0], 1.0
    for i, point in enumerate(points):
        if i != j:
            polynomial = [low - point * high for low, high in zip([0.0, *polynomial], [*polynomial, 0.0])]
            scale *= points[j] - point
    return [c / scale for c in polynomial]


def simple_weights(lams: Sequence[float], start: float, end: float, k: float, corrector: bool) -> list[float]:
    """Weights of two estimates with the linear term's integral replaced by its leading power of h, k h^2 / 2."""
    h = end - start
    constant = -math.expm1(-k * h)
    slope = 1 / (lams[0] - lams[1])
    linear = k * h * h / 2
    return [constant + linear * slope, -linear * slope] if not corrector else [linear / h, constant - linear / h]


def sample_sa_solver(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    tau_func: Tau | None = None,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    predictor_order: int = 3,
    corrector_order: int = 4,
    use_pece: bool = False,
    simple_order_2: bool = False,
) -> Tensor:
    """Predict, evaluate, correct and, with `use_pece`, evaluate again. Reports the predicted state (contract B.3).

    When the last sigma is not 0, the result is the corrected state at the last but one, as recorded.
    """
    if len(sigmas) <= 1:
        return x
    seed = (extra_args or {}).get("seed")
    run, clock, noise = begin(model, x, sigmas, extra_args, callback, noise_sampler or default_noise(x, seed))
    tau = tau_func or _default_tau(model)
    lams = [clock.lam(sigma) if sigma > 0 else math.inf for sigma in run.sigmas]
    ends_in_zero = run.sigmas[-1] == 0
    known: list[tuple[float, Tensor]] = []  # (lam, x0), newest first
    corrected, shift, tau_now = x, None, 0.0

    def step(i: int, estimates: Sequence[tuple[float, Tensor]], corrector: bool) -> Tensor:
        """From the corrected state at i to i + 1 with the present noise."""
        sigma, target, h = run.sigmas[i], run.sigmas[i + 1], lams[i + 1] - lams[i]
        k = 1 + tau_now**2
        points = [lam for lam, _ in estimates]
        if simple_order_2 and len(points) == 2:
            weights = simple_weights(points, lams[i], lams[i + 1], k, corrector)
        else:
            weights = exponential_weights(points, lams[i], lams[i + 1], k)
        mixed = weighted([x0 for _, x0 in estimates], weights)
        moved = corrected * (target / sigma * math.exp(-(tau_now**2) * h)) + mixed * clock.alpha(target)
        return moved if shift is None else moved + shift

    for i, sigma, sigma_next in run.pairs():
        x0 = run.denoise(x, sigma)
        run.report(i, x, x0)
        order = min(corrector_order, i + 1, run.steps - i if ends_in_zero else corrector_order)
        if i > 0 and order > 0:
            x = step(i - 1, [(lams[i], x0), *known][:order], corrector=True)
            if use_pece:
                x0 = run.denoise(x, sigma)
        known = [(lams[i], x0), *known][: max(predictor_order, corrector_order)]
        corrected = x
        if sigma_next == 0:
            return x0
        if i == run.steps - 1:
            break
        tau_now = tau(sigma_next)
        shift = None
        if tau_now > 0 and s_noise > 0:
            spread = math.sqrt(-math.expm1(-2 * tau_now**2 * (lams[i + 1] - lams[i])))
            shift = noise(sigma, sigma_next) * (run.sigmas[i + 1] * spread * s_noise)
        order = min(predictor_order, len(known), run.steps - 1 - i if ends_in_zero else predictor_order)
        x = step(i, known[:order], corrector=False)
    return corrected


def _default_tau(model: Model) -> Tau:
    percent_to_sigma = getattr(model_sampling_of(model), "percent_to_sigma", None)
    if percent_to_sigma is None:
        return lambda sigma: 1.0
    return interval_tau(percent_to_sigma(0.2), percent_to_sigma(0.8), 1.0)


def sample_sa_solver_pece(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    tau_func: Tau | None = None,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    predictor_order: int = 3,
    corrector_order: int = 4,
    simple_order_2: bool = False,
) -> Tensor:
    """SA-Solver that evaluates the corrected state too."""
    return sample_sa_solver(
        model,
        x,
        sigmas,
        extra_args,
        callback,
        disable,
        tau_func,
        s_noise,
        noise_sampler,
        predictor_order,
        corrector_order,
        use_pece=True,
        simple_order_2=simple_order_2,
    )
