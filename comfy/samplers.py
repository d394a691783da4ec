"""Where custom nodes import sampling from. Assigning one of the replaceable names here changes what the core calls."""

from typing import Any

from comfy.replaceable import write_through
from comfy.sampling.areas import add_area_twins, fit_area, resolve_areas_and_masks, with_timesteps
from comfy.sampling.areas import piece_of as get_area_and_mult
from comfy.sampling.batching import can_share as can_concat_cond
from comfy.sampling.batching import join as cond_cat
from comfy.sampling.guidance import calc_cond_batch, cfg_function, sampling_function
from comfy.sampling.guider import CFGGuider, sample
from comfy.sampling.ksampler import KSampler
from comfy.sampling.prepare import encode_model_conds, process_conds
from comfy.sampling.sampler import KSAMPLER, KSAMPLER_NAMES, SAMPLER_NAMES, KSamplerX0Inpaint, Sampler, ksampler, sampler_object
from comfy.sampling.schedules import SCHEDULER_HANDLERS, SCHEDULER_NAMES, SchedulerHandler, calculate_sigmas
from comfy.sampling.schedules import beta as beta_scheduler
from comfy.sampling.schedules import ddim_uniform as ddim_scheduler
from comfy.sampling.schedules import kl_optimal as kl_optimal_scheduler
from comfy.sampling.schedules import linear_quadratic as linear_quadratic_schedule
from comfy.sampling.schedules import normal as normal_scheduler
from comfy.sampling.schedules import simple as simple_scheduler


def resolve_areas_and_cond_masks(conditions: list[Any], h: int, w: int, device: Any) -> None:
    """`resolve_areas_and_cond_masks_multidim` for images."""
    resolve_areas_and_cond_masks_multidim(conditions, (h, w), device)


def resolve_areas_and_cond_masks_multidim(conditions: list[Any], dims: tuple[int, ...], device: Any) -> None:
    """Percent areas and mask bounds -> areas in latent units, written back into the given list."""
    conditions[:] = resolve_areas_and_masks(conditions, dims, device)


def calculate_start_end_timesteps(model: Any, conds: list[Any]) -> None:
    """start_percent and end_percent -> sigmas, written back into the given list."""
    conds[:] = with_timesteps(conds, model.model_sampling)


def cast_to_load_options(model_options: dict[str, Any], device: Any = None, dtype: Any = None) -> dict[str, Any]:
    """The options themselves: what they hold is brought to a device where it is used."""
    return model_options


__all__ = [
    "KSAMPLER",
    "KSAMPLER_NAMES",
    "SAMPLER_NAMES",
    "SCHEDULER_HANDLERS",
    "SCHEDULER_NAMES",
    "CFGGuider",
    "KSampler",
    "KSamplerX0Inpaint",
    "Sampler",
    "SchedulerHandler",
    "add_area_twins",
    "beta_scheduler",
    "calc_cond_batch",
    "calculate_sigmas",
    "calculate_start_end_timesteps",
    "can_concat_cond",
    "cast_to_load_options",
    "cfg_function",
    "cond_cat",
    "ddim_scheduler",
    "encode_model_conds",
    "fit_area",
    "get_area_and_mult",
    "kl_optimal_scheduler",
    "ksampler",
    "linear_quadratic_schedule",
    "normal_scheduler",
    "process_conds",
    "resolve_areas_and_cond_masks",
    "resolve_areas_and_cond_masks_multidim",
    "sample",
    "sampler_object",
    "sampling_function",
    "simple_scheduler",
]

write_through(__name__)
