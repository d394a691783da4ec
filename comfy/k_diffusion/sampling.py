"""The samplers, at the path where the ecosystem looks for them: every `sample_<name>`, and the pieces that packs use.

Signature of a sampler: `(model, x, sigmas, extra_args=None, callback=None, disable=None, **options) -> x`.

model   (x, sigma_b, **extra_args) -> x0 estimate like x, guidance already applied
x       (b, c, h, w), at level sigmas[0]
sigmas  (steps + 1,), descending; the last may be 0
A pack that sets `sample_<name>` here and adds the name to `comfy.samplers.KSampler.SAMPLERS` has added a sampler.
"""

import torch

from comfy.k_diffusion.common import append_dims, get_ancestral_step, to_d
from comfy.k_diffusion.deis import (
    sample_deis,
)
from comfy.k_diffusion.dpm_solver import (
    sample_dpm_adaptive,
    sample_dpm_fast,
)
from comfy.k_diffusion.dpmpp import (
    sample_dpmpp_2m,
    sample_dpmpp_2m_cfg_pp,
    sample_dpmpp_2s_ancestral,
    sample_dpmpp_2s_ancestral_cfg_pp,
)
from comfy.k_diffusion.euler import (
    sample_ddpm,
    sample_euler,
    sample_euler_ancestral,
    sample_euler_ancestral_cfg_pp,
    sample_euler_cfg_pp,
    sample_lcm,
)
from comfy.k_diffusion.heun import (
    sample_dpm_2,
    sample_dpm_2_ancestral,
    sample_heun,
    sample_heunpp2,
)
from comfy.k_diffusion.multistep import (
    sample_ipndm,
    sample_ipndm_v,
    sample_lms,
)
from comfy.k_diffusion.res import (
    sample_gradient_estimation,
    sample_gradient_estimation_cfg_pp,
    sample_res_multistep,
    sample_res_multistep_ancestral,
    sample_res_multistep_ancestral_cfg_pp,
    sample_res_multistep_cfg_pp,
)
from comfy.k_diffusion.sa_solver import (
    sample_sa_solver,
    sample_sa_solver_pece,
)
from comfy.k_diffusion.sde import (
    sample_dpmpp_2m_sde,
    sample_dpmpp_2m_sde_gpu,
    sample_dpmpp_2m_sde_heun,
    sample_dpmpp_2m_sde_heun_gpu,
    sample_dpmpp_3m_sde,
    sample_dpmpp_3m_sde_gpu,
    sample_dpmpp_sde,
    sample_dpmpp_sde_gpu,
)
from comfy.k_diffusion.seeds import (
    sample_er_sde,
    sample_seeds_2,
    sample_seeds_3,
)
from comfy.k_diffusion.uni_pc import (
    sample_uni_pc,
    sample_uni_pc_bh2,
)
from comfy.replaceable import write_through
from comfy.sampling.curves import append_zero
from comfy.sampling.curves import exponential as get_sigmas_exponential
from comfy.sampling.curves import karras as get_sigmas_karras
from comfy.sampling.curves import laplace as get_sigmas_laplace
from comfy.sampling.curves import polyexponential as get_sigmas_polyexponential
from comfy.sampling.curves import variance_preserving as get_sigmas_vp
from comfy.sampling.noise import BrownianTree as BatchedBrownianTree
from comfy.sampling.noise import BrownianTreeNoiseSampler, default_noise_sampler

__all__ = [
    "BatchedBrownianTree",
    "BrownianTreeNoiseSampler",
    "append_dims",
    "append_zero",
    "default_noise_sampler",
    "get_ancestral_step",
    "get_sigmas_exponential",
    "get_sigmas_karras",
    "get_sigmas_laplace",
    "get_sigmas_polyexponential",
    "get_sigmas_vp",
    "sample_ddpm",
    "sample_deis",
    "sample_dpm_2",
    "sample_dpm_2_ancestral",
    "sample_dpm_adaptive",
    "sample_dpm_fast",
    "sample_dpmpp_2m",
    "sample_dpmpp_2m_cfg_pp",
    "sample_dpmpp_2m_sde",
    "sample_dpmpp_2m_sde_gpu",
    "sample_dpmpp_2m_sde_heun",
    "sample_dpmpp_2m_sde_heun_gpu",
    "sample_dpmpp_2s_ancestral",
    "sample_dpmpp_2s_ancestral_cfg_pp",
    "sample_dpmpp_3m_sde",
    "sample_dpmpp_3m_sde_gpu",
    "sample_dpmpp_sde",
    "sample_dpmpp_sde_gpu",
    "sample_er_sde",
    "sample_euler",
    "sample_euler_ancestral",
    "sample_euler_ancestral_cfg_pp",
    "sample_euler_cfg_pp",
    "sample_gradient_estimation",
    "sample_gradient_estimation_cfg_pp",
    "sample_heun",
    "sample_heunpp2",
    "sample_ipndm",
    "sample_ipndm_v",
    "sample_lcm",
    "sample_lms",
    "sample_res_multistep",
    "sample_res_multistep_ancestral",
    "sample_res_multistep_ancestral_cfg_pp",
    "sample_res_multistep_cfg_pp",
    "sample_sa_solver",
    "sample_sa_solver_pece",
    "sample_seeds_2",
    "sample_seeds_3",
    "sample_uni_pc",
    "sample_uni_pc_bh2",
    "to_d",
    "torch",
]

write_through(__name__)
