"""The example workflows: both formats say the same, the server takes them, and their pictures show what they ask for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfy import config, folders
from comfy.control import JobControl
from comfy.nodes.builtin import register_builtin
from comfy.nodes.registry import NodeRegistry
from comfy_execution.job import Job, JobState
from execution import PromptExecutor, validate_prompt
from tests.fakes import cpu_context
from tools.starter_model.look import what_is_on
from tools.starter_model.workflows import FOLDER, WORKFLOWS, described, to_front_end

REGISTRY = NodeRegistry()
register_builtin(REGISTRY)
LANE = cpu_context()
#: workflow -> things on its picture (None: anything)
SHOWN: dict[str, tuple[tuple[str | None, str | None, str], ...]] = {
    "default": (("red", "circle", "center"),),
    "image_to_image": (("green", "square", "top left"),),
    "inpaint": (("red", "circle", "left"), ("blue", "square", "right")),
    "areas": (("yellow", "star", "left"), ("green", "triangle", "right")),
    "edges_and_style": (("cyan", None, "bottom right"),),
}


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Path]:
    folders.configure(replace(config.Config(), output_dir=tmp_path))
    yield tmp_path
    folders.configure(config.Config())


def stored(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_stored_files_are_what_the_script_writes(name: str) -> None:
    prompt = WORKFLOWS[name]()
    assert stored(f"{name}.api.json") == prompt
    assert stored(f"{name}.json") == json.loads(json.dumps(to_front_end(prompt, described())))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_front_ends_graph_holds_together(name: str) -> None:
    graph = stored(f"{name}.json")
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert len(nodes) == len(WORKFLOWS[name]())
    for link, origin, slot, target, socket, kind in graph["links"]:
        assert link in nodes[origin]["outputs"][slot]["links"]
        assert nodes[target]["inputs"][socket]["link"] == link
        assert nodes[origin]["outputs"][slot]["type"] == nodes[target]["inputs"][socket]["type"] == kind


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_picture_shows_what_the_workflow_asks_for(name: str, output: Path) -> None:
    valid = asyncio.run(validate_prompt("p", stored(f"{name}.api.json"), REGISTRY, None))
    assert valid.node_errors == {}
    job = Job(prompt_id="p", number=1, prompt=valid.prompt, outputs=valid.outputs)
    with LANE.activate():
        result = PromptExecutor(REGISTRY).execute(job, JobControl("p"))
    assert result.state is JobState.SUCCEEDED
    (picture,) = (output / "starter").glob(f"{name}_*.png")
    sight = what_is_on(picture)
    assert all(sight.has(*thing) for thing in SHOWN[name]), sight
