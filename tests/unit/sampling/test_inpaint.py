"""Masks, inpainting models, img2img and differential diffusion against the recorded runs (goldens C, D.3)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from comfy.models.inpaint import inpaint_concat
from comfy.nodes.sampling import KSampler
from comfy.nodes.vae import InpaintModelConditioning, VAEEncodeForInpaint
from comfy.sampling.prepare import fix_empty_latent_channels, prepare_mask
from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion
from tests.goldens import assert_close, facts, tensors
from tests.unit.sampling.fakes import AnalyticModel, Handle, LatentFormat

RECORD, STORED = facts("d_inpaint"), tensors("d_inpaint")


class BlockVae:
    """The stand-in of D.3: means of 8 x 8 blocks of 2 p - 1, and the mean of the three."""

    downscale_ratio = 8

    def spacial_compression_encode(self) -> int:
        return 8

    def encode(self, pixels_bhwc: Tensor) -> Tensor:
        height, width = (n // 8 * 8 for n in pixels_bhwc.shape[1:3])
        top, left = ((n - m) // 2 for n, m in zip(pixels_bhwc.shape[1:3], (height, width)))
        cropped = pixels_bhwc[:, top : top + height, left : left + width, :3].movedim(-1, 1) * 2 - 1
        means = torch.nn.functional.avg_pool2d(cropped, 8)
        return torch.cat([means, means.mean(dim=1, keepdim=True)], dim=1)


def model_for(key: str) -> AnalyticModel:
    family = key.split("/")[0]
    latent_format = LatentFormat(0.18215 if family == "eps" else 1.0)

    def extra(**kwargs: Any) -> dict[str, Tensor]:
        wanted = ("noise", "concat_mask", "concat_latent_image", "denoise_mask", "latent_image")
        return {"c_concat": inpaint_concat(scale=latent_format.process_in, **{name: kwargs.get(name) for name in wanted})}

    return AnalyticModel(family, latent_format, extra if RECORD["cases"][key]["inpaint_model"] else None)


def setting(key: str, handle: Handle) -> tuple[Handle, dict[str, Any], dict[str, Any]]:
    """(handle, latent, options of both conditionings) of a recorded case."""
    _, node, *more = key.split("/")
    latent: dict[str, Any] = {"samples": STORED["latent"]}
    options: dict[str, Any] = {}
    if node == "SetLatentNoiseMask":
        latent["noise_mask"] = STORED[f"mask_{more[0]}"].reshape(-1, 1, 48, 64)
    elif node == "DifferentialDiffusion":
        latent["noise_mask"] = STORED["mask_soft"].reshape(-1, 1, 48, 64)
        handle = DifferentialDiffusion.execute(handle, float(more[0].removeprefix("strength"))).result[0]
    elif node == "VAEEncodeForInpaint":
        grow = RECORD["VAEEncodeForInpaint_grow_used_in_sampling_cases"]
        (latent,) = VAEEncodeForInpaint().encode(BlockVae(), STORED["image"], STORED["mask_soft"], grow)
    elif node == "InpaintModelConditioning":
        made = {
            name: STORED[f"InpaintModelConditioning/{name}"] for name in ("concat_latent_image", "concat_mask", "noise_mask", "samples")
        }
        options = {"concat_latent_image": made["concat_latent_image"], "concat_mask": made["concat_mask"]}
        latent = {"samples": made["samples"]}
        if more[0] == "noise_mask_True":
            latent["noise_mask"] = made["noise_mask"]
    elif node == "inpaint_model_latent_mask_only":
        latent["noise_mask"] = STORED["mask_soft"].reshape(-1, 1, 48, 64)
    elif node == "batch3_mask2":
        latent = {"samples": torch.cat([STORED["latent"], 0.5 * STORED["latent"], -STORED["latent"]]), "noise_mask": STORED["batch_mask"]}
    return handle, latent, options


@pytest.mark.parametrize("key", list(RECORD["cases"]))
def test_masked_run_is_the_recorded_one(key):
    case = RECORD["cases"][key]
    model = model_for(key)
    handle, latent, options = setting(key, Handle(model))
    conds = [[[STORED[name], dict(options)]] for name in ("pos", "neg")]
    (out,) = KSampler().sample(
        handle, RECORD["seed"], RECORD["steps"], RECORD["cfg"], case["sampler"], case["scheduler"], *conds, latent, case["denoise"]
    )
    assert_close(out["samples"], STORED[f"{key}/final"], case["tol_final"], what="final")
    assert_close(torch.tensor(model.sigmas), torch.tensor(case["sigmas_of_calls"]), 1e-4, relative=True, what="sigmas")
    assert model.sides[0] == case["batch_order"]
    if f"{key}/calls_x" in STORED:
        kept = STORED[f"{key}/calls_x"]
        assert_close(torch.stack(model.calls[: len(kept)]), kept, case["tol_final"], what="calls_x")
    if f"{key}/c_concat" in STORED:
        assert_close(model.concats[0], STORED[f"{key}/c_concat"], 1e-6, what="c_concat")


MADE = sorted({key.rsplit("/", 1)[0] for key in STORED if key.startswith("VAEEncodeForInpaint/") and "grow" in key})


@pytest.mark.parametrize("made", MADE)
def test_greyed_picture_and_grown_mask_are_the_recorded_ones(made):
    _, size, grow = made.split("/")
    image, mask = (STORED[f"VAEEncodeForInpaint/{size}/{name}"] for name in ("image", "mask"))
    (latent,) = VAEEncodeForInpaint().encode(BlockVae(), image, mask, int(grow.removeprefix("grow")))
    assert_close(latent["samples"], STORED[f"{made}/samples"], 1e-6, what="samples")
    assert_close(latent["noise_mask"], STORED[f"{made}/noise_mask"].float(), 1e-6, what="noise mask")


def test_an_inpainting_model_is_given_what_was_recorded():
    conds = [[[STORED[name], {}]] for name in ("pos", "neg")]
    *sides, latent = InpaintModelConditioning().encode(*conds, STORED["image"], BlockVae(), STORED["mask_soft"], True)
    made = {**sides[0][0][1], **latent}
    for name in ("concat_latent_image", "concat_mask", "samples", "noise_mask"):
        recorded = STORED[f"InpaintModelConditioning/{name}"]
        assert_close(made[name].reshape(recorded.shape), recorded, 1e-6, what=name)
    assert sides[1][0][1].keys() == sides[0][0][1].keys()


SHAPES = facts("c_noise")["mask_target_shape"]


@pytest.mark.parametrize("name", list(SHAPES))
def test_mask_is_resized_as_recorded(name):
    stored = tensors("c_noise")
    out = prepare_mask(stored[f"mask/{name}/in"], SHAPES[name], "cpu")
    assert_close(out, stored[f"mask/{name}/out"], 0.0, what=name)


FIXES = [
    (16, 2, (1, 4, 2, 2), 0.0, (1, 16, 2, 2)),
    (16, 2, (1, 4, 2, 2), 1.0, (1, 4, 2, 2)),
    (16, 3, (1, 16, 2, 2), 1.0, (1, 16, 1, 2, 2)),
    (16, 3, (1, 4, 2, 2), 0.0, (1, 16, 1, 2, 2)),
    (4, 2, (2, 16, 2, 2), 0.0, (2, 4, 2, 2)),
]


@pytest.mark.parametrize(("channels", "dims", "shape", "fill", "expected"), FIXES)
def test_empty_latents_take_the_models_channels(channels, dims, shape, fill, expected):
    handle = Handle(AnalyticModel("eps", LatentFormat(1.0, channels, dims)))
    fixed = fix_empty_latent_channels(handle, torch.full(shape, fill))
    assert tuple(fixed.shape) == expected
    key = f"fix_empty_latent_channels(model ch={channels}, dims={dims}; latent {shape} filled {fill})"
    assert facts("c_noise")["batch_index_nodes"][key] == list(expected)


def test_a_mask_with_the_greatest_seed_runs():
    handle = Handle(AnalyticModel("eps"))
    conds = [[[STORED[name], {}]] for name in ("pos", "neg")]
    latent = {"samples": torch.ones(1, 4, 4, 4), "noise_mask": torch.ones(1, 1, 4, 4) / 2}
    (out,) = KSampler().sample(handle, 2**64 - 1, 2, 2.0, "ddim", "normal", *conds, latent)
    assert bool(out["samples"].isfinite().all())
