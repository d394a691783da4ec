"""The acceptance checks of parallel-hazards.md section 10, on a server with four CPU lanes.

Check 3, interrupt by id and of all: tests/conformance/test_lanes.py::test_interrupts_reach_the_jobs_they_name_and_no_other.
Check 4, two clients with previews: tests/conformance/test_lanes.py::test_two_clients_on_two_lanes_never_see_each_others_private_events.
Check 9, a thread of a node: tests/integration/test_packs.py here, tests/gpu/test_threads_on_gpus.py with GPUs.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.conformance.site import Site, node
from tests.integration.test_packs import latent, post, ran, swap, text

LANES = range(4)


def sampled(seed: int, prefix: str, steps: int = 2) -> dict[str, Any]:
    """A latent of the tiny model, saved."""
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name="tiny.safetensors"),
        "2": node("CLIPTextEncode", clip=["1", 1], text="a cat"),
        "3": node("CLIPTextEncode", clip=["1", 1], text="a dog"),
        "4": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "5": node(
            "KSampler",
            model=["1", 0],
            positive=["2", 0],
            negative=["3", 0],
            latent_image=["4", 0],
            seed=seed,
            steps=steps,
            cfg=4.0,
            sampler_name="euler_ancestral",
            scheduler="normal",
            denoise=1.0,
        ),
        "6": node("SaveLatent", samples=["5", 0], filename_prefix=prefix),
    }


def test_1_eight_seeds_on_all_lanes_at_once_equal_the_same_seeds_one_by_one(packs: Site) -> None:
    alone = {seed: latent(packs, ran(packs, sampled(seed, "alone"), 0), "6") for seed in range(8)}
    ids = {post(packs, sampled(seed, "together"), 3 - seed % 4): seed for seed in range(8)}
    for prompt_id, record in packs.finish(list(ids)).items():
        assert torch.equal(latent(packs, record, "6"), alone[ids[prompt_id]])
    assert len({tensor.numpy().tobytes() for tensor in alone.values()}) == 8


def test_2_four_times_fifty_saves_with_one_prefix_are_200_files(packs: Site) -> None:
    ids = [post(packs, {"1": node("EverydaySaver", colour=lane, count=25, prefix="same/name")}, lane) for lane in LANES]
    batch = {"1": node("EmptyImage", width=8, height=8, batch_size=25, color=0), "2": node("SaveImage", images=["1", 0])}
    batch["2"]["inputs"]["filename_prefix"] = "same/name"
    ids += [post(packs, batch, lane) for lane in LANES]
    records = packs.finish(ids).values()
    files = [(image["subfolder"], image["filename"]) for record in records for out in record["outputs"].values() for image in out["images"]]
    assert len(files) == len(set(files)) == 200
    assert len(list((packs.base / "output/same").glob("name_*.png"))) == 200
    for record in records:  # and each holds what its own job wrote
        if "everyday" in record["outputs"].get("1", {}):
            for image in record["outputs"]["1"]["images"]:
                with Image.open(packs.base / "output/same" / image["filename"]) as picture:
                    assert picture.getpixel((0, 0)) == (record["outputs"]["1"]["everyday"][0],) * 3


def test_5_expanding_nodes_on_all_lanes_at_once_keep_their_ids_and_caches(packs: Site) -> None:
    def prompt(lane: int) -> dict[str, Any]:
        many = {str(n): node("ProbeExpand", value=["n", 0], n=n * 10 + lane) for n in range(1, 9)}
        shows = {f"s{n}": node("ProbeShow", value=[str(n), 0]) for n in range(1, 9)}
        return {"n": node("ProbeNumber", n=lane), **many, **shows}

    for round in (1, 2):
        ids = {post(packs, prompt(lane), lane): lane for lane in LANES}
        for prompt_id, record in packs.finish(list(ids)).items():
            lane = ids[prompt_id]
            assert {key: out["text"][0] for key, out in record["outputs"].items()} == {f"s{n}": str(n * 10 + 2 * lane) for n in range(1, 9)}
            cached = dict(record["status"]["messages"])["execution_cached"]["nodes"]
            assert len(cached) == (0 if round == 1 else 17)


@pytest.mark.parametrize("lane", LANES)
def test_6_a_poisoned_prompt_leaves_its_lane_serving(packs: Site, lane: int) -> None:
    ids = [post(packs, {"1": node("EverydayPoison", how=how)}, lane) for how in ("exit", "keyboard", "link", "class", "ui")]
    for record in packs.finish(ids).values():
        assert record["status"]["messages"][-1][0] == "execution_error"
    assert text(ran(packs, {"1": node("ProbeNumber", n=lane), "2": node("ProbeShow", value=["1", 0])}, lane), "2") == str(lane)


def test_7_free_unloads_on_every_lane(packs: Site) -> None:
    packs.finish([post(packs, sampled(1, "free"), lane) for lane in LANES])
    assert models(packs) == [["tiny.safetensors"]] * 4
    packs.post("/free", {"unload_models": True})
    until = time.monotonic() + 60
    while models(packs) != [[]] * 4:
        assert time.monotonic() < until
        time.sleep(0.01)


def models(site: Site) -> list[list[str]]:
    return [lane["resident_models"] for lane in site.get("/lanes").json()["lanes"]]


def test_8_a_swapping_pack_in_exclusive_mode_leaves_the_prompts_beside_it_as_they_are(packs: Site, tmp_path: Path) -> None:
    expected = latent(packs, ran(packs, sampled(77, "before"), 1), "6")
    gate = tmp_path / "gate"
    tab = packs.tab()
    swapper = tab.post(swap(str(gate)), lane=0)
    until = time.monotonic() + 60
    while not Path(str(gate) + ".inside").exists():
        assert time.monotonic() < until
        time.sleep(0.005)
    packs.post("/free", {"free_memory": True})
    beside = [tab.post(sampled(77, f"beside{lane}", steps=2), lane=lane) for lane in (1, 2, 3)]
    gate.touch()
    records = packs.finish([swapper, *beside])
    assert records[swapper]["outputs"]["3"]["text"] == ["0.0"]  # it sampled with its own function, and nobody else did
    for prompt_id in beside:
        assert torch.equal(latent(packs, records[prompt_id], "6"), expected)
    ended = dict(records[swapper]["status"]["messages"])["execution_success"]["timestamp"]
    began = [dict(records[prompt_id]["status"]["messages"])["execution_start"]["timestamp"] for prompt_id in beside]
    assert min(began) >= ended


def test_10_no_job_changed_a_switch_of_torch(packs: Site) -> None:
    ids = [post(packs, sampled(seed, "flags", steps=1), lane) for seed, lane in enumerate(LANES)]
    packs.finish(ids)
    at_start, now = json.loads(packs.get("/everyday/flags").body)
    assert now == at_start
