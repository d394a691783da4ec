"""Custom-node packs through a real server (contract: custom-nodes.md sections 1 and 4, and the server's part of section 6)."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import numpy as np
import pytest
import torch

from tests.conformance.site import Site, node


def text(record: dict[str, Any], node_id: str = "1") -> str:
    return str(record["outputs"][node_id]["text"][0])


def post(site: Site, prompt: dict[str, Any], lane: int | None = None, **more: Any) -> str:
    headers = {} if lane is None else {"X-TARGET-GPU": str(lane)}
    answer = site.request("POST", "/prompt", json={"prompt": prompt, **more}, headers=headers)
    assert answer.status == 200, answer.body
    return str(answer.json()["prompt_id"])


def ran(site: Site, prompt: dict[str, Any], lane: int | None = None, **more: Any) -> dict[str, Any]:
    """The history record of a prompt that succeeded."""
    record: dict[str, Any] = site.finish([post(site, prompt, lane, **more)]).popitem()[1]
    assert record["status"]["status_str"] == "success", record["status"]["messages"][-1]
    return record


def test_prestartup_scripts_run_before_torch(packs: Site) -> None:
    assert (packs.base / "prestartup.txt").read_text() == "torch False, cpu True"


def test_what_loaded_and_what_did_not_is_in_the_log(packs: Site) -> None:
    log = (packs.base / "console").read_text()
    assert "(IMPORT FAILED) broken.py: ModuleNotFoundError" in log
    assert "everyday: 7 nodes" in log
    assert "swapper is in exclusive mode" in log
    assert "exclusive pack misspelt: no pack of this name is loaded" in log


def test_nodes_of_both_styles_are_described(packs: Site) -> None:
    info = packs.get("/object_info").json()
    where, count = info["EverydayWhere"], info["NewstyleCount"]
    assert (where["display_name"], where["python_module"], where["output_node"]) == ("Where am I", "custom_nodes.everyday", True)
    assert (count["display_name"], count["python_module"]) == ("Count", "custom_nodes.newstyle")
    assert count["input"]["required"]["n"] == ["INT", {"default": 3, "min": 1, "max": 9}]
    assert count["input"]["required"]["how"][0] == "COMBO"


def test_routes_are_served_under_both_paths_and_one_that_fails_hurts_nobody(packs: Site) -> None:
    for path in ("/everyday/hello", "/api/everyday/hello"):
        assert packs.get(path).json() == {"hello": "world", "client": None}
    assert packs.get("/everyday/broken").status == 500
    assert packs.get("/everyday/hello").status == 200


def test_scripts_translations_and_examples_of_packs(packs: Site) -> None:
    assert "/extensions/everyday/everyday.js" in packs.get("/extensions").json()
    script = packs.get("/extensions/everyday/everyday.js")
    assert (script.status, script.body) == (200, b'console.log("everyday");\n')
    assert packs.get("/extensions/everyday-more/en/nodeDefs.json").status == 200  # a folder that the pack registered by itself
    assert packs.get("/i18n").json()["en"]["nodeDefs"]["EverydayWhere"] == {"display_name": "Where am I?"}
    assert packs.get("/workflow_templates").json()["everyday"] == ["first"]
    assert json.loads(packs.get("/api/workflow_templates/everyday/first.json").body) == {"nodes": []}


def test_events_of_a_pack_reach_the_session_they_are_for(packs: Site) -> None:
    mine, other = packs.tab(), packs.tab()
    assert packs.post(f"/everyday/echo/{mine.sid}", {"deep": [1, {"x": None}]}).status == 200
    assert ("everyday-echo", {"deep": [1, {"x": None}]}) in mine.drain()
    assert all(event[0] != "everyday-echo" for event in other.drain())


def test_handlers_of_submissions_change_them_and_one_that_fails_is_passed_over(packs: Site) -> None:
    prompt = {"1": node("ProbeNumber", n=5) | {"_meta": {"title": "raise me"}}, "2": node("ProbeShow", value=["1", 0])}
    record = ran(packs, prompt)
    assert text(record, "2") == "6"
    assert record["prompt"][2]["1"]["inputs"]["n"] == 6


@pytest.mark.parametrize("lane", [0, 3])
def test_threads_and_pools_of_a_node_belong_to_its_job_and_lane(packs: Site, lane: int) -> None:
    tab = packs.tab()
    prompt_id = tab.post({"1": node("EverydayWhere", n=lane)}, lane=lane)
    tab.until(prompt_id)
    assert tab.data("everyday-thread") == [{"n": lane}]
    (record,) = packs.finish([prompt_id]).values()
    seen = json.loads(text(record))
    assert seen == [[lane, prompt_id, tab.sid, "cpu"]] * 4


def test_a_node_that_takes_the_first_running_item_takes_its_own_and_queues_it_again(packs: Site) -> None:
    gates = [packs.tab().post(held("other", lane), lane=lane) for lane in (0, 1)]
    ids = [post(packs, {"1": node("EverydayAgain", n=2)}, lane, prompt_id=f"first{lane}") for lane in (2, 3)]
    again = [f"again-{prompt_id}" for prompt_id in ids]
    last = [f"again-{prompt_id}" for prompt_id in again]
    records = packs.finish([*ids, *again, *last])
    assert {prompt_id: text(record) for prompt_id, record in records.items()} == {prompt_id: prompt_id for prompt_id in records}
    packs.open("other", 2)
    packs.finish(gates)


def held(gate: str, value: int) -> dict[str, Any]:
    return {"1": node("ProbeNumber", n=value), "2": node("ProbeSilent", value=["1", 0], gate=gate), "3": node("ProbeShow", value=["2", 0])}


def test_a_v3_pack_counts_with_progress_through_the_blocking_api(packs: Site) -> None:
    tab = packs.tab()
    prompt_id = tab.post({"7": node("NewstyleCount", n=3, how="up")})
    tab.until(prompt_id)
    states = [data["nodes"]["7"] for data in tab.data("progress_state") if "7" in data["nodes"]]
    assert [(state["value"], state["max"]) for state in states] == [(0, 1), (1, 3), (2, 3), (3, 3), (3, 3)]
    assert text(packs.record(prompt_id), "7") == "7: 3"


def test_a_model_in_a_packs_global_is_right_on_every_lane(packs: Site) -> None:
    """Hazard 49: the handle is shared, the module never."""

    def prompt(loader: str, seed: int) -> dict[str, Any]:
        return {
            "1": node(loader, ckpt_name="tiny.safetensors"),
            "2": node("EverydaySampled", model=["1", 0], clip=["1", 1], seed=seed),
            "3": node("SaveLatent", samples=["2", 0], filename_prefix="kept"),
        }

    expected = latent(packs, ran(packs, prompt("CheckpointLoaderSimple", 5), 0), "3")
    ids = [post(packs, prompt("EverydayKeptModel", 5), lane) for lane in range(4)]
    for record in packs.finish(ids).values():
        assert torch.equal(latent(packs, record, "3"), expected)


def latent(site: Site, record: dict[str, Any], node_id: str) -> torch.Tensor:
    from safetensors.torch import load

    assert record["status"]["status_str"] == "success", record["status"]["messages"][-1]
    (file,) = record["outputs"][node_id]["latents"]
    return load((site.base / "output" / file["subfolder"] / file["filename"]).read_bytes())["latent_tensor"]


def test_a_subclass_of_a_built_in_node_saves_where_its_settings_say(packs: Site) -> None:
    prompt = {"1": node("ProbeNoise", seed=1, size=8), "2": node("EverydayPreview", images=["1", 0])}
    (image,) = ran(packs, prompt)["outputs"]["2"]["images"]
    assert image["type"] == "temp"
    assert image["filename"].startswith("mine_everyday_")
    assert packs.get(f"/view?filename={image['filename']}&type=temp").status == 200


def alone(seed: int, n: int) -> list[list[float]]:
    """What a process that runs nothing else draws."""
    python, numpy, cpu = random.Random(seed), np.random.RandomState(seed), torch.Generator().manual_seed(seed)
    return [[python.random(), float(numpy.rand()), float(torch.rand((), generator=cpu))] for _ in range(n)]


@pytest.mark.parametrize("cls", ["SeederDraw", "SeederDrawLater"])
def test_a_pack_that_seeds_global_generators_draws_on_busy_lanes_what_it_draws_alone(packs: Site, cls: str) -> None:
    seeds = range(100, 116)
    ids = {post(packs, {"1": node(cls, seed=seed, n=20)}, seed % 4): seed for seed in seeds}
    for prompt_id, record in packs.finish(list(ids)).items():
        assert json.loads(text(record)) == alone(ids[prompt_id], 20)


def test_an_exclusive_job_that_waits_for_its_turn_can_be_stopped(packs: Site) -> None:
    tab = packs.tab()
    holder = tab.post(held("turn", 1), lane=0)
    packs.until_runs("silent turn begins")
    waiting = tab.post(swap("never"), lane=1)
    until_state(packs, 1, "running")
    assert packs.post("/interrupt", {"prompt_id": waiting}).status == 200
    tab.until(waiting)
    assert packs.record(waiting)["status"]["messages"][-1][0] == "execution_interrupted"
    packs.open("turn")
    packs.finish([holder])


def swap(gate: str) -> dict[str, Any]:
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name="tiny.safetensors"),
        "2": node("CLIPTextEncode", clip=["1", 1], text="x"),
        "3": node("SwapSampled", model=["1", 0], positive=["2", 0], gate=gate),
    }


def until_state(site: Site, lane: int, state: str) -> None:
    until = time.monotonic() + 60
    while site.get("/lanes").json()["lanes"][lane]["state"] != state:
        assert time.monotonic() < until
        time.sleep(0.01)
