"""The extra channels of inpainting UNets equal the recorded ones (goldens README, D.3; node outputs 1e-6)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from comfy.latent_formats import SD15, LatentFormat
from comfy.models.inpaint import inpaint_concat
from tests import goldens

TENSORS = goldens.tensors("d_inpaint")
FORMATS = {"eps": SD15(), "flow": LatentFormat()}
NOISE = torch.zeros(2, 4, 6, 8)


def inputs(case: str, scaled: LatentFormat) -> dict[str, Tensor]:
    if case == "InpaintModelConditioning/noise_mask_True":
        return {name: TENSORS[f"InpaintModelConditioning/{name}"] for name in ("concat_mask", "concat_latent_image")}
    if case == "inpaint_model_latent_mask_only":
        return {"denoise_mask": TENSORS["mask_soft"], "latent_image": scaled.process_in(TENSORS["latent"])}
    return {"latent_image": torch.zeros(1, 4, 6, 8)}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("case", ["InpaintModelConditioning/noise_mask_True", "inpaint_model_latent_mask_only", "inpaint_model_no_mask"])
def test_concat(kind: str, case: str) -> None:
    found = inpaint_concat(NOISE, FORMATS[kind].process_in, **inputs(case, FORMATS[kind]))
    goldens.assert_close(found, TENSORS[f"{kind}/{case}/c_concat"], 1e-6)
