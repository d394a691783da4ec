"""The VAE handle: shapes, crops, ranges, batches, tiles."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from comfy.errors import InputUnusable, ModelUnknown
from comfy.models.loader import Checkpoint
from comfy.models.vae import VAE
from tests.fakes import cpu_context
from tests.hashed_weights import hashed

PIXELS = hashed((2, 48, 40, 3), 11).abs()
LATENT = hashed((2, 4, 6, 5), 12)


@pytest.fixture
def vae(checkpoint: Checkpoint) -> Iterator[VAE]:
    assert checkpoint.vae is not None
    with cpu_context().activate():
        yield checkpoint.vae


def test_pictures_and_latents(vae: VAE) -> None:
    pictures, latent = vae.decode(LATENT), vae.encode(PIXELS)
    assert (pictures.shape, pictures.dtype, pictures.device.type) == ((2, 48, 40, 3), torch.float32, "cpu")
    assert (latent.shape, latent.dtype, latent.device.type) == ((2, 4, 6, 5), torch.float32, "cpu")
    assert 0.0 <= float(pictures.min()) < float(pictures.max()) <= 1.0


def test_results_are_those_of_the_network(vae: VAE) -> None:
    network = vae.first_stage_model
    by_hand = ((network.decode(LATENT[:1]) + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1)
    assert torch.equal(vae.decode(LATENT[:1]), by_hand)
    assert torch.equal(vae.encode(PIXELS[:1]), network.encode(PIXELS[:1].permute(0, 3, 1, 2) * 2 - 1))


def test_a_batch_has_the_bytes_of_its_pictures_alone(vae: VAE) -> None:
    assert torch.equal(vae.decode(LATENT)[1:], vae.decode(LATENT[1:]))
    assert torch.equal(vae.encode(PIXELS)[1:], vae.encode(PIXELS[1:]))


def test_encode_takes_the_centre_of_other_sizes_and_three_channels(vae: VAE) -> None:
    odd = torch.cat([torch.zeros(1, 3, 40, 3), PIXELS[:1], torch.zeros(1, 4, 40, 3)], dim=1)  # 7 rows more: 3 above, 4 below
    odd = torch.cat([odd, torch.ones(1, 55, 40, 1)], dim=3)
    assert torch.equal(vae.encode(odd), vae.encode(PIXELS[:1]))


def test_one_tile_is_the_whole(vae: VAE) -> None:
    assert torch.allclose(vae.decode_tiled(LATENT, 64, 64, 16), vae.decode(LATENT), atol=1e-5)
    assert torch.allclose(vae.encode_tiled(PIXELS, 512, 512, 64), vae.encode(PIXELS), atol=1e-5)


def test_tiles_have_the_shape_of_the_whole_and_differ_from_it(vae: VAE) -> None:
    latent, pixels = hashed((1, 4, 12, 10), 13), hashed((1, 96, 80, 3), 14).abs()
    tiled, whole = vae.decode_tiled(latent, 8, 8, 2), vae.decode(latent)
    assert tiled.shape == whole.shape
    assert not torch.equal(tiled, whole)
    assert vae.encode_tiled(pixels, 64, 64, 16).shape == vae.encode(pixels).shape


@pytest.mark.parametrize("shape", [(1, 16, 4, 4), (4, 4, 4), (1, 4, 0, 4), (1, 4, 2, 4, 4)])
def test_latents_of_another_kind_are_refused(vae: VAE, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputUnusable):
        vae.decode(torch.zeros(shape))
    with pytest.raises(InputUnusable):
        vae.decode_tiled(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 7, 64, 3), (1, 64, 64, 1), (64, 64, 3), (0, 64, 64, 3)])
def test_pictures_of_another_kind_are_refused(vae: VAE, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputUnusable):
        vae.encode(torch.zeros(shape))


def test_a_vae_from_tensors_does_the_same(vae: VAE) -> None:
    own = VAE(sd=dict(vae.get_sd()))
    assert torch.equal(own.decode(LATENT), vae.decode(LATENT))
    with pytest.raises(ModelUnknown):
        VAE(sd={})


def test_what_packs_read(vae: VAE) -> None:
    assert (vae.latent_channels, vae.downscale_ratio, vae.spacial_compression_decode(), vae.temporal_compression_decode()) == (
        4,
        8,
        8,
        None,
    )
    assert vae.vae_encode_crop_pixels(torch.zeros(1, 15, 17, 3)).shape == (1, 8, 16, 3)
    assert vae.memory_used_decode((1, 4, 64, 64), torch.float16) == 2 * vae.memory_used_decode((1, 4, 32, 64), torch.float16)
