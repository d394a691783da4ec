"""Latent formats equal the recorded ones (goldens README, section F; tolerance 1e-6 relative)."""

from __future__ import annotations

import pytest

from comfy import latent_formats
from tests import goldens

FACTS = goldens.facts("f_latent_formats")
TENSORS = goldens.tensors("f_latent_formats")
NAMES = [name for name in FACTS if not name.startswith("_")]
MEMBERS = ("latent_channels", "latent_dimensions", "taesd_decoder_name", "scale_factor", "latent_rgb_factors", "latent_rgb_factors_bias")


@pytest.mark.parametrize("name", NAMES)
def test_members(name: str) -> None:
    found = getattr(latent_formats, name)()
    assert {member: getattr(found, member) for member in MEMBERS} == {member: FACTS[name][member] for member in MEMBERS}


@pytest.mark.parametrize("name", NAMES)
def test_process(name: str) -> None:
    found = getattr(latent_formats, name)()
    x = TENSORS[f"{name}/x"]
    goldens.assert_close(found.process_in(x), TENSORS[f"{name}/process_in"], 1e-6, relative=True)
    goldens.assert_close(found.process_out(x), TENSORS[f"{name}/process_out"], 1e-6, relative=True)
