"""One small checkpoint for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy.models.loader import Checkpoint, load_checkpoint
from tests.make_checkpoint import make_sd1_checkpoint


@pytest.fixture(scope="session")
def checkpoint_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sd1_checkpoint(tmp_path_factory.mktemp("models") / "small.safetensors")


@pytest.fixture
def checkpoint(checkpoint_path: Path) -> Checkpoint:
    return load_checkpoint(checkpoint_path, embedding_folders=())
