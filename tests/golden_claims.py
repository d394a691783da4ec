"""Which test compares which recorded number (goldens a to g), and which numbers none compares, with the reason.

`tests/unit/sampling/test_goldens_are_compared.py` holds this map to the record and to the tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

S, T, M = "unit.sampling.test_", "unit.text.test_", "unit.models.test_"


@dataclass(frozen=True)
class Claim:
    """Keys of one file that match `pattern` are compared by `test` when it is called with `given`.

    given   argument -> value, `{0}`, `{1}` … standing for the pattern's groups; numbers where the text is one
    inputs  the key holds what the recorded run was given: some call of the parametrized test must notice a change
    """

    file: str
    pattern: str
    test: str
    given: tuple[tuple[str, str], ...] = ()
    inputs: bool = False


def claim(file: str, pattern: str, test: str, **given: str) -> Claim:
    return Claim(file, pattern, test, tuple(given.items()))


def inputs(file: str, pattern: str, test: str) -> Claim:
    return Claim(file, pattern, test, inputs=True)


SCALING = "calculate_input|calculate_denoised|noise_scaling|noise_scaling_maxdenoise|inverse_noise_scaling"
CURVE = "(?:Karras|Exponential|Polyexponential|Laplace|VP|BetaSampling|SDTurbo)Scheduler"
RESULT = "(?:final|calls_x|cb_x|cb_denoised)"

CLAIMS = (
    claim("a_ksampler_sigmas", r"([^/]+/[^/]+/[^/]+)/.+", S + "ksampler:test_the_sampler_is_given_the_recorded_sigmas", case="{0}"),
    inputs("a_model_sampling", r"_x|_model_output|_latent", S + "parameterization:test_scalings_are_the_recorded_ones"),
    claim("a_model_sampling", r"([^/]+)/table", S + "parameterization:test_table_is_the_recorded_one", name="{0}"),
    claim(
        "a_model_sampling",
        r"([^/]+)/(?:probe_sigma|timestep_of_sigma|sigma_of_timestep)",
        S + "parameterization:test_percent_sigma_and_timestep_are_the_recorded_ones",
        name="{0}",
    ),
    claim("a_model_sampling", rf"([^/]+)/({SCALING})", S + "parameterization:test_scalings_are_the_recorded_ones", name="{0}", rule="{1}"),
    claim("a_scheduler_nodes", rf"({CURVE}/.+)", S + "schedules:test_curve_is_the_recorded_one", key="{0}"),
    claim(
        "a_scheduler_nodes",
        r"((?:AYS|AlignYourStepsScheduler|OptimalStepsScheduler)/.+)",
        S + "custom_sampling:test_published_schedule_is_the_recorded_one",
        key="{0}",
    ),
    inputs("a_scheduler_nodes", r"manip/in", S + "schedules:test_manipulated_sigmas_are_the_recorded_ones"),
    claim("a_scheduler_nodes", r"(manip/.+/.+|manip/FlipSigmas)", S + "schedules:test_manipulated_sigmas_are_the_recorded_ones", key="{0}"),
    claim("a_sigmas", r"([^/]+/[^/]+)/.+", S + "schedules:test_schedules_are_the_recorded_ones", case="{0}"),
    inputs("b_custom_samplers", r"pos|neg", S + "custom_sampling:test_a_node_with_options_runs_as_recorded"),
    inputs("b_custom_samplers", r"addnoise_latent", S + "custom_sampling:test_add_noise_is_the_recorded_latent"),
    claim("b_custom_samplers", r"(eps|flow)/split/.+", S + "custom_sampling:test_two_stages_are_one_run", family="{0}"),
    claim(
        "b_custom_samplers",
        r"(eps|flow)/AddNoise/(.+)",
        S + "custom_sampling:test_add_noise_is_the_recorded_latent",
        family="{0}",
        part="{1}",
    ),
    claim(
        "b_custom_samplers",
        r"((?:eps|flow)/(?!split|AddNoise).+)/(?:final|denoised_output|calls_x)",
        S + "custom_sampling:test_a_node_with_options_runs_as_recorded",
        key="{0}",
    ),
    inputs("b_edge_steps", r"pos|neg", S + "samplers:test_one_two_and_three_steps_end_as_recorded"),
    claim("b_edge_steps", r"(steps.+)/final", S + "samplers:test_one_two_and_three_steps_end_as_recorded", key="{0}"),
    claim(
        "b_noise_samplers",
        r"(brownian/.+)",
        S + "noise:test_brownian_noise_is_the_recorded_path_in_any_order",
        key="{0}",
        backwards="False",
    ),
    claim("b_noise_samplers", r"(default/.+)", S + "noise:test_default_noise_is_the_recorded_draws", key="{0}"),
    inputs("b_samplers", r"pos|neg|latent_C", S + "samplers:test_trajectory_is_the_recorded_one"),
    claim("b_samplers", rf"([ABC]/.+)/{RESULT}", S + "samplers:test_trajectory_is_the_recorded_one", key="{0}"),
    claim("c_noise", r"((?:plain|batch_index|fp16|ddim_inpaint_noise)/.+)", S + "noise:test_initial_noise_is_the_recorded_draw", key="{0}"),
    claim("c_noise", r"global_rng_after_.+", S + "noise:test_later_draws_continue_the_stream_of_the_initial_noise"),
    claim("c_noise", r"mask/(.+)/(?:in|out)", S + "inpaint:test_mask_is_resized_as_recorded", name="{0}"),
    inputs("d_cond_algebra", r"in/.+", S + "guidance:test_conditioning_algebra_is_the_recorded_one"),
    claim("d_cond_algebra", r"(\w+)/\d+/.+", S + "guidance:test_conditioning_algebra_is_the_recorded_one", name="{0}"),
    inputs("d_end_to_end", r"pos|neg|latent4|latent16", S + "end_to_end:test_run_is_the_recorded_one"),
    claim("d_end_to_end", r"(.+)/(?:final|net_input)", S + "end_to_end:test_run_is_the_recorded_one", key="{0}"),
    inputs("d_guidance", r"x/.+|x_batch2/.+|cond/.+|mask_.+", S + "guidance:test_prediction_is_the_recorded_one"),
    claim(
        "d_guidance", r"((?:eps|flow)/[^/]+)/(?:denoised|cond|uncond|mult\d)", S + "guidance:test_prediction_is_the_recorded_one", key="{0}"
    ),
    inputs("d_inpaint", r"pos|neg|latent|image|mask_hard|mask_soft|batch_mask", S + "inpaint:test_masked_run_is_the_recorded_one"),
    claim("d_inpaint", r"InpaintModelConditioning/.+", S + "inpaint:test_an_inpainting_model_is_given_what_was_recorded"),
    inputs("d_inpaint", r"VAEEncodeForInpaint/\w+/(?:image|mask)", S + "inpaint:test_greyed_picture_and_grown_mask_are_the_recorded_ones"),
    claim(
        "d_inpaint",
        r"(VAEEncodeForInpaint/.+/grow\d+)/.+",
        S + "inpaint:test_greyed_picture_and_grown_mask_are_the_recorded_ones",
        made="{0}",
    ),
    claim("d_inpaint", r"((?:eps|flow)/.+)/(?:final|calls_x|c_concat)", S + "inpaint:test_masked_run_is_the_recorded_one", key="{0}"),
    inputs("e_adm", r"pooled", M + "adm:test_vectors"),
    inputs("e_adm", r"timestep_embedding/t", M + "adm:test_sinusoids"),
    claim("e_adm", r"timestep_embedding/dim(\d+)", M + "adm:test_sinusoids", dim="{0}"),
    claim("e_adm", r"((?:sdxl|refiner)/.+)", M + "adm:test_vectors", case="{0}"),
    inputs("e_encode", r"embedding/clip_l", T + "encode:test_sd1"),
    inputs("e_encode", r"embedding/clip_g", T + "encode:test_sdxl"),
    claim("e_encode", r"(sd1/.+)/(?:cond|pooled)", T + "encode:test_sd1", case="{0}"),
    claim("e_encode", r"(sdxl/p.+)/(?:cond|pooled)", T + "encode:test_sdxl", case="{0}"),
    claim("e_encode", r"sdxl/node_long_g_short_l/.+", T + "encode:test_sdxl_with_a_long_and_a_short_prompt"),
    claim("e_encode", r"sdxl/node_refiner_fields/.+", T + "encode:test_sdxl_with_the_refiners_fields"),
    claim("e_encode", r"flux/p0/.+", T + "encode:test_flux_with_the_empty_prompt"),
    claim("e_encode", r"sd3_noT5/.+", T + "encode:test_sd3_without_t5"),
    claim("f_latent_formats", r"(\w+)/(?:x|process_in|process_out)", M + "latent_formats:test_process", name="{0}"),
    claim("f_latent_formats", r"(\w+)/preview_(?:in|rgb)", M + "tiny:test_linear_previews_are_the_recorded_ones", name="{0}"),
    inputs("g_image_ops", r"in/batch3", "unit.images.test_goldens_g:test_batches_are_repeated_and_spread_as_recorded"),
    inputs("g_image_ops", r"in/(?!batch3).+", "unit.images.test_goldens_g:test_a_node_gives_the_recorded_tensors"),
    claim(
        "g_image_ops",
        r"re(?:peat|size)_to_batch_size/(\d)",
        "unit.images.test_goldens_g:test_batches_are_repeated_and_spread_as_recorded",
        size="{0}",
    ),
    claim("g_image_ops", r"save_uint8/.+", "unit.images.test_goldens_g:test_saving_truncates_to_bytes_as_recorded"),
    claim("g_image_ops", r"EmptyImage", "unit.images.test_goldens_g:test_an_empty_image_has_the_recorded_colour"),
    claim(
        "g_image_ops",
        r"((?!in/|EmptyImage|re(?:peat|size)_to|save_uint8).+?)(?:/out\d)?",
        "unit.images.test_goldens_g:test_a_node_gives_the_recorded_tensors",
        case="{0}",
    ),
)

#: (file, pattern) -> why no test compares these keys
UNCOMPARED = {
    (
        "a_scheduler_nodes",
        r"GITS(?:Scheduler)?/.+",
    ): "GITSScheduler is not here: 8 of its 285 published lists are recorded, and the others do not follow",
    (
        "e_embeddings",
        r".+",
    ): "arbitrary rows: the record of tokens names them by place, which test_tokens compares; their values decide nothing",
    ("e_encode", r"flux/(?:p[12]|node)/.+"): "T5's vocabulary is not here",
}


def groups_of(one: Claim, key: str) -> dict[str, Any] | None:
    """The arguments with which the claim's test compares `key`; None when the claim is not about it."""
    found = re.fullmatch(one.pattern, key)
    if found is None:
        return None
    return {name: _value(text.format(*found.groups())) for name, text in one.given}


def _value(text: str) -> Any:
    if text in ("True", "False"):
        return text == "True"
    return int(text) if text.isdigit() else text


def claims_of(file: str, key: str) -> Iterator[tuple[Claim, dict[str, Any]]]:
    """Every claim about a key."""
    for one in CLAIMS:
        if one.file == file and (given := groups_of(one, key)) is not None:
            yield one, given
