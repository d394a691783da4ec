"""Checkpoint to picture, picture to picture, inpainting and tiles: whole workflows on a tiny checkpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comfy import config, folders
from comfy.control import JobControl
from comfy.nodes.builtin import register_builtin
from comfy.nodes.registry import NodeRegistry
from comfy_execution.events import JobResult
from comfy_execution.job import Job, JobState
from execution import PromptExecutor, validate_prompt
from tests.fakes import cpu_context
from tests.make_checkpoint import make_sd1_checkpoint

REGISTRY = NodeRegistry()
register_builtin(REGISTRY)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("base")
    folders.configure(config.load(["--base-directory", str(path)], {}))
    (path / "models" / "checkpoints").mkdir(parents=True)
    make_sd1_checkpoint(path / "models" / "checkpoints" / "tiny.safetensors")
    yield path
    folders.configure(config.Config())


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def workflow(latent: dict[str, dict[str, Any]], denoise: float, decode: dict[str, Any]) -> dict[str, Any]:
    """A prompt whose node 5 gives the latent, and whose picture is saved."""
    settings = {"seed": 7, "steps": 2, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "denoise": denoise}
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name="tiny.safetensors"),
        "2": node("CLIPTextEncode", text="a red square", clip=["1", 1]),
        "3": node("CLIPTextEncode", text="", clip=["1", 1]),
        "4": node("EmptyImage", width=40, height=32, batch_size=1, color=0x336699),
        **latent,
        "6": node("KSampler", model=["1", 0], positive=["2", 0], negative=["3", 0], latent_image=["5", 0], **settings),
        "7": decode,
        "8": node("SaveImage", images=["7", 0], filename_prefix="x"),
    }


DECODE = node("VAEDecode", samples=["6", 0], vae=["1", 2])
TILED = node("VAEDecodeTiled", samples=["6", 0], vae=["1", 2], tile_size=64, overlap=32, temporal_size=64, temporal_overlap=8)
ENCODED = {"5": node("VAEEncode", pixels=["4", 0], vae=["1", 2])}
ENCODED_TILED = {"5": node("VAEEncodeTiled", pixels=["4", 0], vae=["1", 2], tile_size=64, overlap=32, temporal_size=64, temporal_overlap=8)}
INPAINTED = {
    "9": node("SolidMask", value=1.0, width=20, height=32),
    "10": node("SolidMask", value=0.0, width=40, height=32),
    "11": node("MaskComposite", destination=["10", 0], source=["9", 0], x=0, y=0, operation="add"),
    "5": node("VAEEncodeForInpaint", pixels=["4", 0], vae=["1", 2], mask=["11", 0], grow_mask_by=2),
}
EMPTY = {"5": node("EmptyLatentImage", width=40, height=32, batch_size=1)}


LANE = cpu_context()  # keeps the networks between the tests; each job has an executor, and so a cache, of its own


def execute(prompt: dict[str, Any]) -> JobResult:
    valid = asyncio.run(validate_prompt("p", prompt, REGISTRY, None))
    job = Job(prompt_id="p", number=1, prompt=valid.prompt, outputs=valid.outputs)
    with LANE.activate():
        return PromptExecutor(REGISTRY).execute(job, JobControl("p"))


def pixels(base: Path, prompt: dict[str, Any]) -> np.ndarray[Any, Any]:
    """The saved picture as (h, w, 3) bytes."""
    result = execute(prompt)
    assert result.state is JobState.SUCCEEDED, result.messages
    with Image.open(base / "output" / result.outputs["8"]["images"][0]["filename"]) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("latent", [EMPTY, ENCODED, ENCODED_TILED, INPAINTED], ids=["text", "image", "image in tiles", "inpaint"])
def test_one_seed_gives_one_picture(base: Path, latent: dict[str, Any]) -> None:
    prompt = workflow(latent, 1.0 if latent is EMPTY else 0.6, DECODE)
    first = pixels(base, prompt)
    assert first.shape == (32, 40, 3)
    assert first.std() > 0
    assert np.array_equal(first, pixels(base, prompt))


def test_tiles_that_cover_everything_give_the_whole_picture(base: Path) -> None:
    whole = pixels(base, workflow(EMPTY, 1.0, DECODE))
    large = {**TILED, "inputs": {**TILED["inputs"], "tile_size": 512}}
    assert np.abs(pixels(base, workflow(EMPTY, 1.0, large)).astype(int) - whole).max() <= 1
    assert pixels(base, workflow(EMPTY, 1.0, TILED)).shape == whole.shape


def test_a_checkpoint_that_went_away_fails_the_job_with_its_name(base: Path) -> None:
    gone = base / "models" / "checkpoints" / "gone.safetensors"
    gone.write_bytes((base / "models" / "checkpoints" / "tiny.safetensors").read_bytes())
    prompt = workflow(EMPTY, 1.0, DECODE)
    prompt["1"]["inputs"]["ckpt_name"] = "gone.safetensors"
    valid = asyncio.run(validate_prompt("p", prompt, REGISTRY, None))
    gone.unlink()
    job = Job(prompt_id="p", number=1, prompt=valid.prompt, outputs=valid.outputs)
    with LANE.activate():
        result = PromptExecutor(REGISTRY).execute(job, JobControl("p"))
    assert result.state is JobState.FAILED
    assert "gone.safetensors" in result.messages[-1][1]["exception_message"]
