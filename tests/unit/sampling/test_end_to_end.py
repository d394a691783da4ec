"""A network behind every parameterization and latent format, from latent to latent (goldens D.4)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from comfy import latent_formats
from comfy.nodes.sampling import KSampler
from comfy_extras import nodes_model_advanced as nodes
from tests.goldens import assert_close, facts, tensors
from tests.unit.sampling.fakes import Handle, NetworkModel
from tests.unit.sampling.kinds import sampling_type

RECORD, STORED = facts("d_end_to_end"), tensors("d_end_to_end")
SD15, SDXL = latent_formats.SD15, latent_formats.SDXL
#: config -> (sampling type, latent format, node that changes the type)
CONFIGS: dict[str, tuple[str, Any, Any]] = {
    "sd15_eps": ("sd15_eps", SD15, None),
    "sdxl_eps": ("sdxl_eps", SDXL, None),
    "sd21_v": ("sd15_vpred", SD15, None),
    "node_v_zsnr": ("sd15_eps", SD15, lambda h: nodes.ModelSamplingDiscrete().patch(h, "v_prediction", True)),
    "node_x0": ("sd15_eps", SD15, lambda h: nodes.ModelSamplingDiscrete().patch(h, "x0", False)),
    "node_lcm": ("sd15_eps", SD15, lambda h: nodes.ModelSamplingDiscrete().patch(h, "lcm", False)),
    "edm_playground": ("sd15_eps", SDXL, lambda h: nodes.ModelSamplingContinuousEDM().patch(h, "edm_playground_v2.5", 80.0, 0.002)),
    "svd_edm_v": ("sd15_eps", SD15, lambda h: nodes.ModelSamplingContinuousEDM().patch(h, "v_prediction", 700.0, 0.002)),
    "cont_v": ("sd15_eps", SD15, lambda h: nodes.ModelSamplingContinuousV().patch(h, "v_prediction", 500.0, 0.03)),
    "sd3": ("flow_shift1", latent_formats.SD3, lambda h: nodes.ModelSamplingSD3().patch(h, 3.0)),
    "auraflow": ("flow_shift1", SDXL, lambda h: nodes.ModelSamplingAuraFlow().patch_aura(h, 1.73)),
    "flux": ("flux_shift1.15", latent_formats.Flux, None),
    "flux_node": ("flux_shift1.15", latent_formats.Flux, lambda h: nodes.ModelSamplingFlux().patch(h, 1.15, 0.5, 512, 768)),
    "cascade": ("sd15_eps", latent_formats.SC_Prior, lambda h: nodes.ModelSamplingStableCascade().patch(h, 2.0)),
    "cosmos_rflow": ("sd15_eps", SD15, lambda h: nodes.ModelSamplingContinuousEDM().patch(h, "cosmos_rflow", 80.0, 0.002)),
}


@pytest.mark.parametrize("key", list(RECORD["cases"]))
def test_run_is_the_recorded_one(key):
    config, sampler, scheduler, denoise = key.split("/")
    case = RECORD["cases"][key]
    kind, latent_format, change = CONFIGS[config]
    model = NetworkModel(sampling_type(kind), latent_format())
    handle = Handle(model)
    if change is not None:
        (handle,) = change(handle)
    latent = STORED[case["latent"]]
    samples = torch.zeros_like(latent) if case["empty_latent"] else latent
    conds = [[[STORED[name], {}]] for name in ("pos", "neg")]
    part = float(denoise.removeprefix("den"))
    (out,) = KSampler().sample(
        handle, RECORD["seed"], RECORD["steps"], RECORD["cfg"], sampler, scheduler, *conds, {"samples": samples}, part
    )
    assert_close(out["samples"], STORED[f"{key}/final"], case["tol_final"], what="final")
    assert_close(torch.tensor(model.timesteps), torch.tensor(case["net_timesteps"]), 2e-4 * max(1.0, model.timesteps[0]), what="timesteps")
    inputs = STORED[f"{key}/net_input"]
    assert_close(torch.stack(model.calls), inputs, 2e-4 * max(1.0, float(inputs.abs().max())), what="network input")
