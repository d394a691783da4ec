"""Workflows of picture, mask and text nodes through validation and the executor, V1 and V3 mixed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfy import config, folders
from comfy.control import JobControl
from comfy.nodes.builtin import register_builtin
from comfy.nodes.registry import NodeRegistry
from comfy_execution.events import JobResult
from comfy_execution.job import Job, JobState
from execution import PromptExecutor, validate_prompt

REGISTRY = NodeRegistry()
register_builtin(REGISTRY)


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    folders.configure(config.load(["--base-directory", str(tmp_path)], {}))
    yield tmp_path
    folders.configure(config.Config())


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def run(prompt: dict[str, Any], extra: dict[str, Any] | None = None) -> JobResult:
    """Validate and execute; fails the test when either does not succeed."""
    valid = asyncio.run(validate_prompt("p", prompt, REGISTRY, None))
    job = Job(prompt_id="p", number=1, prompt=valid.prompt, outputs=valid.outputs, extra_data={"extra_pnginfo": extra})
    result = PromptExecutor(REGISTRY).execute(job, JobControl("p"))
    assert result.state is JobState.SUCCEEDED, result.messages
    return result


def test_pictures_are_made_changed_and_saved(base: Path) -> None:
    prompt = {
        "1": node("EmptyImage", width=32, height=24, batch_size=2, color=0xFF0000),
        "2": node("EmptyImage", width=16, height=16, batch_size=2, color=0x0000FF),
        "3": node("ImageBlend", image1=["1", 0], image2=["2", 0], blend_factor=0.5, blend_mode="normal"),
        "4": node("ImageScaleBy", image=["3", 0], upscale_method="lanczos", scale_by=2.0),
        "5": node("SolidMask", value=1.0, width=64, height=48),
        "6": node("JoinImageWithAlpha", image=["4", 0], alpha=["5", 0]),
        "7": node("SaveImage", images=["6", 0], filename_prefix="t/x"),
        "8": node("RebatchImages", images=["4", 0], batch_size=1),
        "9": node("GetImageSize", image=["8", 0]),
        "10": node("PreviewAny", source=["9", 2]),
    }
    result = run(prompt, {"workflow": {"id": 1}})
    assert [one["filename"] for one in result.outputs["7"]["images"]] == ["x_00001_.png", "x_00002_.png"]
    assert list(result.outputs["10"]["text"]) == ["1", "1"]  # the list of two batches of one picture each
    with Image.open(base / "output" / "t" / "x_00001_.png") as picture:
        assert (picture.size, picture.mode) == ((64, 48), "RGBA")
        assert picture.getpixel((5, 5)) == (127, 0, 127, 0)
        assert json.loads(picture.text["workflow"]) == {"id": 1}  # type: ignore[attr-defined]
        assert json.loads(picture.text["prompt"])["3"]["class_type"] == "ImageBlend"  # type: ignore[attr-defined]


def test_text_and_numbers_flow_between_new_and_old_nodes(base: Path) -> None:
    prompt = {
        "1": node("PrimitiveString", value="size: 12"),
        "2": node(
            "RegexExtract",
            string=["1", 0],
            regex_pattern=r"(\d+)",
            mode="First Group",
            case_insensitive=True,
            multiline=False,
            dotall=False,
            group_index=1,
        ),
        "3": node("StringConcatenate", string_a="n", string_b=["2", 0], delimiter="="),
        "4": node("PreviewAny", source=["3", 0]),
        "5": node("StringLength", string=["3", 0]),
        "6": node("SolidMask", value=0.5, width=["5", 0], height=3),
        "7": node("MaskPreview", mask=["6", 0]),
    }
    result = run(prompt)
    assert list(result.outputs["4"]["text"]) == ["n=12"]
    name = result.outputs["7"]["images"][0]["filename"]
    with Image.open(base / "temp" / name) as picture:
        assert picture.size == (4, 3)


def test_latents_go_through_operations_and_a_file(base: Path) -> None:
    prompt = {
        "1": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "2": node("LatentBatch", samples1=["1", 0], samples2=["1", 0]),
        "3": node("LatentOperationSharpen", sharpen_radius=2, sigma=1.0, alpha=0.1),
        "4": node("LatentApplyOperation", samples=["2", 0], operation=["3", 0]),
        "5": node("RebatchLatents", latents=["4", 0], batch_size=1),
        "6": node("SaveLatent", samples=["5", 0], filename_prefix="latents/x"),
    }
    result = run(prompt)
    assert [one["filename"] for one in result.outputs["6"]["latents"]] == ["x_00001_.latent", "x_00002_.latent"]


def test_an_output_node_of_the_new_style_embeds_the_prompt(base: Path) -> None:
    av = pytest.importorskip("av")
    prompt = {
        "1": node("EmptyImage", width=64, height=64, batch_size=3, color=255),
        "2": node("CreateVideo", images=["1", 0], fps=6.0),
        "3": node("SaveVideo", video=["2", 0], filename_prefix="v", format="auto", codec="auto"),
    }
    result = run(prompt, {"workflow": {"id": 2}})
    assert list(result.outputs["3"]["animated"]) == [True]
    with av.open(str(base / "output" / result.outputs["3"]["images"][0]["filename"])) as container:
        assert json.loads(container.metadata["workflow"]) == {"id": 2}
        assert json.loads(container.metadata["prompt"])["2"]["class_type"] == "CreateVideo"


def test_a_node_that_cannot_do_it_fails_its_job_with_a_typed_error() -> None:
    prompt = {
        "1": node("EmptyImage", width=8, height=8, batch_size=1, color=0),
        "2": node("ImageBlur", image=["1", 0], blur_radius=9, sigma=1.0),
        "3": node("PreviewAny", source=["2", 0]),
    }
    valid = asyncio.run(validate_prompt("p", prompt, REGISTRY, None))
    job = Job(prompt_id="p", number=1, prompt=valid.prompt, outputs=valid.outputs)
    result = PromptExecutor(REGISTRY).execute(job, JobControl("p"))
    assert result.state is JobState.FAILED
    name, data = result.messages[-1]
    assert (name, data["node_id"]) == ("execution_error", "2")
    assert data["exception_type"].endswith("InputUnusable")
