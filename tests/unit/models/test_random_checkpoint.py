"""Random checkpoints: small, whole, the same for the same seed."""

from __future__ import annotations

import filecmp
from pathlib import Path

import torch

from comfy.config import Config
from comfy.folders import Folders
from comfy.models.loader import load_checkpoint
from comfy.models.random_checkpoint import PLACEHOLDER, ensure_placeholder, full_sizes, layout
from comfy.weights.header import open_index
from tests.fakes import cpu_context
from tests.make_checkpoint import make_sd1_checkpoint


def folders_in(path: Path) -> Folders:
    return Folders(Config(base_dir=path, output_dir=path / "output", input_dir=path, temp_dir=path / "temp", user_dir=path / "user"), path)


def test_the_seed_decides_the_bytes(tmp_path: Path, checkpoint_path: Path) -> None:
    again, other = make_sd1_checkpoint(tmp_path / "a.safetensors"), make_sd1_checkpoint(tmp_path / "b.safetensors", seed=1)
    assert filecmp.cmp(again, checkpoint_path, shallow=False)
    assert not filecmp.cmp(other, checkpoint_path, shallow=False)
    assert [p.name for p in tmp_path.iterdir() if "part" in p.name] == []


def test_the_true_layout() -> None:
    shapes = layout(full_sizes())
    assert len([name for name in shapes if name.startswith("model.diffusion_model.")]) == 686
    assert len([name for name in shapes if name.startswith("first_stage_model.")]) == 248
    assert len([name for name in shapes if name.startswith("cond_stage_model.transformer.text_model.")]) == 197
    unet = sum(torch.Size(shape).numel() for name, shape in shapes.items() if name.startswith("model.diffusion_model."))
    assert unet == 859_520_964  # the published size of SD1.5's UNet


def test_a_placeholder_is_made_once_and_makes_pictures(tmp_path: Path) -> None:
    folders = folders_in(tmp_path)
    path = ensure_placeholder(folders)
    assert path is not None
    assert Path(path).name == PLACEHOLDER
    assert Path(path).stat().st_size < 16 * 2**20
    assert ensure_placeholder(folders_in(tmp_path)) is None
    model, clip, vae = load_checkpoint(path, embedding_folders=())
    assert clip is not None
    assert vae is not None
    with cpu_context().activate():
        x0 = model.model.apply_model(torch.ones(1, 4, 8, 8), torch.tensor([3.0]), c_crossattn=clip.encode("a cat"))
        picture = vae.decode(model.model.process_latent_out(x0))
    assert bool(torch.isfinite(picture).all())
    assert float(picture.std()) > 0.01


def test_the_placeholder_goes_when_there_is_a_real_checkpoint(tmp_path: Path) -> None:
    path = ensure_placeholder(folders_in(tmp_path))
    assert path is not None
    make_sd1_checkpoint(Path(path).with_name("real.safetensors"))
    assert ensure_placeholder(folders_in(tmp_path)) is None
    assert folders_in(tmp_path).filename_list("checkpoints") == ["real.safetensors"]


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    assert ensure_placeholder(folders_in(tmp_path)) is None


def test_bfloat16_and_other_widths(tmp_path: Path) -> None:
    path = make_sd1_checkpoint(
        tmp_path / "a.safetensors", width=64, channel_mult=(1, 1, 2), context=128, dtype=torch.bfloat16, in_channels=9
    )
    assert open_index(path).tensors["model.diffusion_model.out.2.weight"].dtype == torch.bfloat16
    assert load_checkpoint(path, embedding_folders=()).model.source.unet.in_channels == 9  # type: ignore[union-attr]
