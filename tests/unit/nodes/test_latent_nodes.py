"""Batches of latents, masks for inpainting, latents as files (goldens README, sections C and D.3)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from comfy import config, folders
from comfy.errors import ComfyError, InputUnusable, WeightFileInvalid
from comfy.nodes.latent import LatentFromBatch, RepeatLatentBatch, SetLatentNoiseMask
from comfy.nodes.latent_files import LoadLatent, SaveLatent, latent_bytes
from comfy.nodes.vae import InpaintModelConditioning, VAEDecode, VAEDecodeTiled, VAEEncode, VAEEncodeForInpaint, VAEEncodeTiled
from comfy_extras.nodes_latent import LatentBatch, LatentBatchSeedBehavior, LatentConcat
from comfy_extras.nodes_rebatch import RebatchLatents
from tests import goldens

BATCHES: dict[str, Any] = goldens.facts("c_noise")["batch_index_nodes"]
INPAINT = goldens.tensors("d_inpaint")


def latent(batch: int, numbers: list[int] | None = None, masks: int = 0) -> dict[str, Any]:
    made: dict[str, Any] = {"samples": torch.zeros(batch, 4, 2, 2)}
    if numbers:
        made["batch_index"] = numbers
    if masks:
        made["noise_mask"] = torch.zeros(masks, 1, 16, 16)
    return made


def facts(made: dict[str, Any]) -> dict[str, Any]:
    """The three facts that the record keeps of a latent."""
    mask = made.get("noise_mask")
    shape = list(made["samples"].shape)
    return {"shape": shape, "batch_index": made.get("batch_index"), "noise_mask": None if mask is None else list(mask.shape)}


def of_batch(batch: int, start: int, length: int, **more: Any) -> Any:
    return facts(LatentFromBatch().frombatch(latent(batch, **more), start, length)[0])


def repeated(batch: int, amount: int, **more: Any) -> Any:
    return facts(RepeatLatentBatch().repeat(latent(batch, **more), amount)[0])


def behaving(how: str, **more: Any) -> Any:
    return facts(LatentBatchSeedBehavior.execute(latent(3, **more), how).args[0])


MADE = {
    "LatentFromBatch(batch of 5, index 2, length 2)": lambda: of_batch(5, 2, 2),
    "LatentFromBatch(batch of 5, index 9, length 3)": lambda: of_batch(5, 9, 3),
    "LatentFromBatch(batch of 3 with batch_index [7, 8, 9], index 1, length 5)": lambda: of_batch(3, 1, 5, numbers=[7, 8, 9]),
    "LatentFromBatch(batch of 4 with noise_mask batch 2, index 2, length 2)": lambda: of_batch(4, 2, 2, masks=2),
    "RepeatLatentBatch(batch of 2, x3)": lambda: repeated(2, 3),
    "RepeatLatentBatch(batch of 2 with batch_index [4, 6], x3)": lambda: repeated(2, 3, numbers=[4, 6]),
    "RepeatLatentBatch(batch of 2 with noise_mask batch 2, x2)": lambda: repeated(2, 2, masks=2),
    "LatentBatch(2 and 1)": lambda: facts(LatentBatch.execute(latent(2), latent(1)).args[0]),
    "LatentBatch(2 with [3,4] and 2)": lambda: facts(LatentBatch.execute(latent(2, [3, 4]), latent(2)).args[0]),
    "LatentBatchSeedBehavior fixed (3)": lambda: behaving("fixed"),
    "LatentBatchSeedBehavior fixed (3 with [5, 6, 7])": lambda: behaving("fixed", numbers=[5, 6, 7]),
    "LatentBatchSeedBehavior random (3 with [5, 6, 7])": lambda: behaving("random", numbers=[5, 6, 7]),
    "RebatchLatents([3, 2], batch 2)": lambda: [facts(one) for one in RebatchLatents.execute([latent(3), latent(2)], [2]).args[0]],
}


@pytest.mark.parametrize("case", [name for name in BATCHES if not name.startswith("fix_empty_latent_channels")])
def test_noise_numbers_and_masks_follow_their_items(case: str) -> None:
    assert MADE[case]() == BATCHES[case]


def test_rebatching_keeps_sizes_and_masks_apart() -> None:
    wide = {"samples": torch.zeros(1, 4, 2, 4)}
    made = RebatchLatents.execute([latent(1), wide, latent(1, masks=1)], [5]).args[0]
    assert [list(one["samples"].shape) for one in made] == [[1, 4, 2, 2], [1, 4, 2, 4], [1, 4, 2, 2]]
    assert [one["batch_index"] for one in made] == [[0], [1], [2]]
    assert "noise_mask" in made[2]
    assert "noise_mask" not in made[0]


def test_a_mask_is_stored_with_a_channel() -> None:
    given = latent(1)
    assert SetLatentNoiseMask().set_mask(given, torch.zeros(5, 7))[0]["noise_mask"].shape == (1, 1, 5, 7)
    assert "noise_mask" not in given


def test_latents_that_do_not_fit_are_refused() -> None:
    other = {"samples": torch.zeros(1, 4, 3, 3)}
    with pytest.raises(InputUnusable):
        LatentConcat.execute(latent(1), other, "x")
    with pytest.raises(InputUnusable):
        LatentConcat.execute(latent(1), latent(1), "t")


class BlockMeans:
    """The stand-in VAE of the recording: 8 x 8 means of 2p - 1, and their mean as a fourth channel."""

    def __init__(self) -> None:
        self.tiles: dict[str, Any] = {}

    def spacial_compression_encode(self) -> int:
        return 8

    def spacial_compression_decode(self) -> int:
        return 8

    def temporal_compression_decode(self) -> int | None:
        return None

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        height, width = (side // 8 * 8 for side in pixels.shape[1:3])
        top, left = ((side % 8) // 2 for side in pixels.shape[1:3])
        cropped = pixels[:, top : top + height, left : left + width].movedim(-1, 1)
        means = torch.nn.functional.avg_pool2d(2 * cropped - 1, 8)
        return torch.cat((means, means.mean(1, keepdim=True)), dim=1)

    def decode(self, samples: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(samples[:, :3], scale_factor=8).movedim(1, -1)

    def decode_tiled(self, samples: torch.Tensor, **tiles: Any) -> torch.Tensor:
        self.tiles = tiles
        return self.decode(samples)

    def encode_tiled(self, pixels: torch.Tensor, **tiles: Any) -> torch.Tensor:
        self.tiles = tiles
        return self.encode(pixels)


FOR_INPAINT = sorted(key.removesuffix("/samples") for key in INPAINT if re.fullmatch(r"VAEEncodeForInpaint/\w+/grow\d+/samples", key))


@pytest.mark.parametrize("case", FOR_INPAINT)
def test_encoding_for_inpainting_greys_and_grows_as_recorded(case: str) -> None:
    folder, grow = case.rsplit("/grow", 1)
    made = VAEEncodeForInpaint().encode(BlockMeans(), INPAINT[f"{folder}/image"], INPAINT[f"{folder}/mask"], int(grow))[0]
    goldens.assert_close(made["samples"], INPAINT[f"{case}/samples"], 1e-6, what=case)
    assert made["noise_mask"].to(torch.uint8).equal(INPAINT[f"{case}/noise_mask"])


@pytest.mark.parametrize("noise_mask", [True, False])
def test_an_inpainting_model_gets_the_greyed_latent_and_the_soft_mask(noise_mask: bool) -> None:
    conditioning = [[torch.zeros(1, 2, 3), {"pooled_output": None}]]
    pixels, mask = torch.rand(1, 17, 18, 3, generator=torch.Generator().manual_seed(0)), torch.full((1, 17, 18), 0.3)
    positive, negative, made = InpaintModelConditioning().encode(conditioning, conditioning, pixels, BlockMeans(), mask, noise_mask)
    assert positive[0][1]["concat_mask"].shape == (1, 1, 16, 16)
    assert torch.allclose(positive[0][1]["concat_mask"], torch.tensor(0.3))
    assert negative[0][1]["concat_latent_image"].equal(made["samples"])  # 0.3 rounds to 0: nothing was greyed
    assert ("noise_mask" in made) is noise_mask
    assert conditioning[0][1] == {"pooled_output": None}


def test_pictures_go_through_the_vae_with_three_channels() -> None:
    vae = BlockMeans()
    assert VAEEncode().encode(vae, torch.zeros(2, 16, 24, 4))[0]["samples"].shape == (2, 4, 2, 3)
    assert VAEEncode.vae_encode_crop_pixels(torch.zeros(1, 19, 31, 3)).shape == (1, 16, 24, 3)
    assert VAEDecode().decode(vae, latent(2))[0].shape == (2, 16, 16, 3)


@pytest.mark.parametrize(
    "call",
    [
        lambda: VAEDecode().decode(None, latent(1)),
        lambda: VAEDecodeTiled().decode(None, latent(1), 512),
        lambda: VAEEncode().encode(None, torch.zeros(1, 8, 8, 3)),
        lambda: VAEEncodeTiled().encode(None, torch.zeros(1, 8, 8, 3), 512, 64),
        lambda: VAEEncodeForInpaint().encode(None, torch.zeros(1, 8, 8, 3), torch.zeros(1, 8, 8)),
        lambda: InpaintModelConditioning().encode([], [], torch.zeros(1, 8, 8, 3), None, torch.zeros(1, 8, 8)),
    ],
)
def test_a_missing_vae_is_named(call: Any) -> None:
    with pytest.raises(InputUnusable, match="no VAE"):
        call()


def test_decoded_frames_become_a_batch() -> None:
    class Frames(BlockMeans):
        def decode(self, samples: torch.Tensor) -> torch.Tensor:
            return torch.zeros(2, 5, 16, 16, 3)

    assert VAEDecode().decode(Frames(), latent(2))[0].shape == (10, 16, 16, 3)


@pytest.mark.parametrize(("tile", "overlap", "expected"), [(512, 64, (64, 8)), (64, 64, (8, 2))])
def test_tiles_are_given_in_latent_pixels_and_move_on(tile: int, overlap: int, expected: tuple[int, int]) -> None:
    vae = BlockMeans()
    VAEDecodeTiled().decode(vae, latent(1), tile, overlap)
    assert (vae.tiles["tile_x"], vae.tiles["tile_y"], vae.tiles["overlap"]) == (expected[0], *expected)
    assert vae.tiles["tile_t"] is None
    VAEEncodeTiled().encode(vae, torch.zeros(1, 16, 16, 3), tile, 32)
    assert (vae.tiles["tile_x"], vae.tiles["overlap"]) == (tile, 32 if tile > 64 else 16)


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    folders.configure(config.load(["--base-directory", str(tmp_path)], {}))
    (tmp_path / "input").mkdir(exist_ok=True)
    yield tmp_path
    folders.configure(config.Config())


def test_a_latent_comes_back_from_its_file(base: Path) -> None:
    samples = torch.randn(1, 4, 3, 5, generator=torch.Generator().manual_seed(1))
    shown = SaveLatent().save({"samples": samples}, "latents/x", {"1": {}}, {"workflow": {}})["ui"]["latents"]
    assert shown == [{"filename": "x_00001_.latent", "subfolder": "latents", "type": "output"}]
    (base / "output" / "latents" / "x_00001_.latent").rename(base / "input" / "x.latent")
    assert LoadLatent.INPUT_TYPES()["required"]["latent"] == (["x.latent"],)
    assert LoadLatent.VALIDATE_INPUTS("x.latent") is True
    assert LoadLatent().load("x.latent")[0]["samples"].equal(samples)


def test_a_latent_without_a_version_is_scaled_back(base: Path) -> None:
    from safetensors.torch import save_file

    save_file({"latent_tensor": torch.ones(1, 4, 2, 2)}, base / "input" / "old.latent")
    assert torch.allclose(LoadLatent().load("old.latent")[0]["samples"], torch.tensor(1 / 0.18215))


@pytest.mark.parametrize("name", ["missing.latent", "../secret.latent", "broken.latent", "other.latent"])
def test_files_that_are_no_latents_are_refused(base: Path, name: str) -> None:
    from safetensors.torch import save_file

    (base / "secret.latent").write_bytes(latent_bytes(torch.zeros(1), {}))
    (base / "input" / "broken.latent").write_bytes(b"\xff" * 40)
    save_file({"weight": torch.ones(2)}, base / "input" / "other.latent")
    with pytest.raises(ComfyError) as raised:
        LoadLatent().load(name)
    assert isinstance(raised.value, WeightFileInvalid) is (name == "broken.latent")
