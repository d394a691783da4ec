"""Vector conditioning and sinusoids equal the recorded ones (goldens README, section E.3; tolerance 1e-4)."""

from __future__ import annotations

import pytest

from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from comfy.models.adm import refiner_vector, sdxl_vector
from tests import goldens

TENSORS = goldens.tensors("e_adm")
FACTS = goldens.facts("e_adm")
VECTORS = {"sdxl": sdxl_vector, "refiner": refiner_vector}


@pytest.mark.parametrize("dim", [7, 320])
def test_sinusoids(dim: int) -> None:
    found = timestep_embedding(TENSORS["timestep_embedding/t"], dim)
    goldens.assert_close(found, TENSORS[f"timestep_embedding/dim{dim}"], 1e-4)


@pytest.mark.parametrize("case", FACTS)
def test_vectors(case: str) -> None:
    goldens.assert_close(VECTORS[case.split("/")[0]](TENSORS["pooled"], **FACTS[case]), TENSORS[case], 1e-4)
