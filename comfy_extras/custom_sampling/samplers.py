"""Nodes that give a sampler with its options. Maths: comfy/k_diffusion."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from comfy.k_diffusion.sa_solver import interval_tau
from comfy.nodes.v1 import number, required, rounded, whole
from comfy.sampling.ksampler import KSampler
from comfy.sampling.sampler import KSAMPLER, ksampler, sampler_object

ETA = S_NOISE = number(1.0, 0.0, 100.0)
NOISE_DEVICE = (["gpu", "cpu"],)


class _Sampler:
    CATEGORY, FUNCTION, RETURN_TYPES = "sampling/custom_sampling/samplers", "get_sampler", ("SAMPLER",)


class KSamplerSelect(_Sampler):
    """A sampler by name, with its usual options."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(sampler_name=(KSampler.SAMPLERS,))

    def get_sampler(self, sampler_name: str) -> tuple[KSAMPLER]:
        return (sampler_object(sampler_name),)


class SamplerEulerAncestral(_Sampler):
    """Euler with ancestral noise."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(eta=ETA, s_noise=S_NOISE)

    def get_sampler(self, eta: float, s_noise: float) -> tuple[KSAMPLER]:
        return (ksampler("euler_ancestral", {"eta": eta, "s_noise": s_noise}),)


class SamplerEulerAncestralCFGPP(_Sampler):
    """Euler with ancestral noise and CFG++."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(eta=number(1.0, 0.0, 1.0), s_noise=number(1.0, 0.0, 10.0))

    def get_sampler(self, eta: float, s_noise: float) -> tuple[KSAMPLER]:
        return (ksampler("euler_ancestral_cfg_pp", {"eta": eta, "s_noise": s_noise}),)


class SamplerLMS(_Sampler):
    """Linear multistep of a given order."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(order=whole(4, 1, 100))

    def get_sampler(self, order: int) -> tuple[KSAMPLER]:
        return (ksampler("lms", {"order": order}),)


def _on(name: str, noise_device: str) -> str:
    return name if noise_device == "cpu" else f"{name}_gpu"


class SamplerDPMPP_3M_SDE(_Sampler):
    """DPM-Solver++(3M) SDE."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(eta=ETA, s_noise=S_NOISE, noise_device=NOISE_DEVICE)

    def get_sampler(self, eta: float, s_noise: float, noise_device: str) -> tuple[KSAMPLER]:
        return (ksampler(_on("dpmpp_3m_sde", noise_device), {"eta": eta, "s_noise": s_noise}),)


class SamplerDPMPP_2M_SDE(_Sampler):
    """DPM-Solver++(2M) SDE."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(solver_type=(["midpoint", "heun"],), eta=ETA, s_noise=S_NOISE, noise_device=NOISE_DEVICE)

    def get_sampler(self, solver_type: str, eta: float, s_noise: float, noise_device: str) -> tuple[KSAMPLER]:
        return (ksampler(_on("dpmpp_2m_sde", noise_device), {"eta": eta, "s_noise": s_noise, "solver_type": solver_type}),)


class SamplerDPMPP_SDE(_Sampler):
    """DPM-Solver++ (stochastic) with two stages."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(eta=ETA, s_noise=S_NOISE, r=number(0.5, 0.0, 100.0), noise_device=NOISE_DEVICE)

    def get_sampler(self, eta: float, s_noise: float, r: float, noise_device: str) -> tuple[KSAMPLER]:
        return (ksampler(_on("dpmpp_sde", noise_device), {"eta": eta, "s_noise": s_noise, "r": r}),)


class SamplerDPMPP_2S_Ancestral(_Sampler):
    """DPM-Solver++(2S) with ancestral noise."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(eta=ETA, s_noise=S_NOISE)

    def get_sampler(self, eta: float, s_noise: float) -> tuple[KSAMPLER]:
        return (ksampler("dpmpp_2s_ancestral", {"eta": eta, "s_noise": s_noise}),)


class SamplerDPMAdaptative(_Sampler):
    """DPM-Solver with adaptive steps."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        wide = {"low": 0.0, "high": 100.0}
        return required(
            order=whole(3, 2, 3),
            rtol=number(0.05, **wide),
            atol=number(0.0078, **wide),
            h_init=number(0.05, **wide),
            pcoeff=number(0.0, **wide),
            icoeff=number(1.0, **wide),
            dcoeff=number(0.0, **wide),
            accept_safety=number(0.81, **wide),
            eta=number(0.0, **wide),
            s_noise=number(1.0, **wide),
        )

    def get_sampler(self, **options: Any) -> tuple[KSAMPLER]:
        return (ksampler("dpm_adaptive", options),)


class _PowerScaler:
    """psi(L) = L^(eta + 1), the reverse-time SDE of ER-SDE."""

    def __init__(self, eta: float) -> None:
        self.eta = eta

    def __call__(self, level: Tensor) -> Tensor:
        return level ** (self.eta + 1)


class SamplerER_SDE(_Sampler):
    """ER-SDE, its reverse-time special case, or the ODE that is left without noise."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        eta_tooltip = "How stochastic the reverse-time SDE is; 0 is the ODE. Other types do not use it."
        return required(
            solver_type=("COMBO", {"options": ["ER-SDE", "Reverse-time SDE", "ODE"]}),
            max_stage=whole(3, 1, 3),
            eta=number(1.0, 0.0, 100.0, tooltip=eta_tooltip),
            s_noise=S_NOISE,
        )

    def get_sampler(self, solver_type: str, max_stage: int, eta: float, s_noise: float) -> tuple[KSAMPLER]:
        if solver_type == "ODE" or (solver_type == "Reverse-time SDE" and eta == 0):
            eta, s_noise = 0.0, 0.0
        scaler = None if solver_type == "ER-SDE" else _PowerScaler(eta)
        return (ksampler("er_sde", {"s_noise": s_noise, "noise_scaler": scaler, "max_stage": max_stage}),)


class SamplerSASolver(_Sampler):
    """The stochastic Adams solver, stochastic in a part of the sampling."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return required(
            model=("MODEL", {}),
            eta=number(1.0, 0.0, 10.0),
            sde_start_percent=rounded(0.2, 0.0, 1.0, 0.001),
            sde_end_percent=rounded(0.8, 0.0, 1.0, 0.001),
            s_noise=S_NOISE,
            predictor_order=whole(3, 1, 6),
            corrector_order=whole(4, 0, 6),
            use_pece=("BOOLEAN", {}),
            simple_order_2=("BOOLEAN", {}),
        )

    def get_sampler(
        self,
        model: Any,
        eta: float,
        sde_start_percent: float,
        sde_end_percent: float,
        s_noise: float,
        predictor_order: int,
        corrector_order: int,
        use_pece: bool,
        simple_order_2: bool,
    ) -> tuple[KSAMPLER]:
        percent_to_sigma = model.get_model_object("model_sampling").percent_to_sigma
        options = {
            "tau_func": interval_tau(percent_to_sigma(sde_start_percent), percent_to_sigma(sde_end_percent), eta),
            "s_noise": s_noise,
            "predictor_order": predictor_order,
            "corrector_order": corrector_order,
            "use_pece": use_pece,
            "simple_order_2": simple_order_2,
        }
        return (ksampler("sa_solver", options),)


NODES = {
    cls.__name__: cls
    for cls in (
        KSamplerSelect,
        SamplerEulerAncestral,
        SamplerEulerAncestralCFGPP,
        SamplerLMS,
        SamplerDPMPP_3M_SDE,
        SamplerDPMPP_2M_SDE,
        SamplerDPMPP_SDE,
        SamplerDPMPP_2S_Ancestral,
        SamplerDPMAdaptative,
        SamplerER_SDE,
        SamplerSASolver,
    )
}
