from __future__ import annotations

import json
import os
import sys
from typing import Any

import pytest

from comfy.web.info import installed_version
from server import PromptServer
from tests.unit.web.helpers import Note, Site, graph, with_site


async def run(site: Site, *prompt_ids: str) -> None:
    for prompt_id in prompt_ids:
        await site.json("POST", "/prompt", json={"prompt": graph(), "prompt_id": prompt_id}, headers={"X-TARGET-GPU": "0"})
        await site.wait(site.house.wait_ended, prompt_id)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "abcd"),
        ("?max_items=2", "cd"),
        ("?max_items=200", "abcd"),
        ("?max_items=0", ""),
        ("?max_items=-1", ""),
        ("?max_items=0&offset=0", ""),
        ("?offset=1", "bcd"),
        ("?max_items=2&offset=1", "bc"),
        ("?max_items=2&offset=-1", "cd"),
        ("?offset=9", ""),
        ("?max_items=+2", "cd"),
    ],
)
def test_history_windows(query: str, expected: str) -> None:
    async def test(site: Site) -> None:
        await run(site, *"abcd")
        assert list(await site.json("GET", "/history" + query)) == list(expected)

    with_site(test)


@pytest.mark.parametrize("query", ["max_items=x", "max_items=", "offset=1.5", "offset=٣", "max_items=1e3", "max_items=" + "9" * 5000])
def test_what_is_no_whole_number_is_refused(query: str) -> None:
    async def test(site: Site) -> None:
        error = await site.error("GET", "/history?" + query)
        assert (error["type"], error["extra_info"]["field"]) == ("query_invalid", query.partition("=")[0])

    with_site(test)


def test_one_entry_says_which_lane_ran_it() -> None:
    async def test(site: Site) -> None:
        await run(site, "a")
        record = (await site.json("GET", "/api/history/a"))["a"]
        assert record["prompt"][1] == "a"
        assert record["gpu_id"] == 0
        assert await site.json("GET", "/history/nope") == {}

    with_site(test)


def test_deleting_and_clearing_history_sends_no_event() -> None:
    async def test(site: Site) -> None:
        await run(site, *"abc")
        before = len(site.house.events)
        await site.empty("POST", "/history", json={"delete": ["a", "nope"]})
        assert list(await site.json("GET", "/history")) == ["b", "c"]
        for body in (b"[]", b"null", b'{"delete": "b"}', b'{"clear": true, "delete": 5}'):
            assert (await site.error("POST", "/history", data=body))["type"] == "body_invalid"
        assert list(await site.json("GET", "/history")) == ["b", "c"]
        await site.empty("POST", "/history", json={"clear": True})
        assert await site.json("GET", "/history") == {}
        assert len(site.house.events) == before

    with_site(test)


class Broken(Note):
    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        raise OSError("no folder")


class Odd(Note):
    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"x": ("FLOAT", {"default": float("inf"), "object": object})}}


def test_object_info_leaves_out_a_class_that_throws() -> None:
    def prepare(server: PromptServer) -> None:
        server.registry.add({"Broken": Broken, "Odd": Odd}, module="custom_nodes.p")

    async def test(site: Site) -> None:
        info = await site.json("GET", "/object_info")
        assert list(info) == ["Note", "Odd"]
        assert info["Odd"]["input"]["required"]["x"][1]["default"] is None
        assert await site.json("GET", "/object_info/Note") == {"Note": info["Note"]}
        assert info["Note"]["input_order"] == {"required": ["text", "n"]}
        assert await site.json("GET", "/api/object_info/nope") == {}
        assert (await site.error("GET", "/object_info/Broken", 500))["type"] == "internal_error"

    with_site(test, prepare=prepare)


def test_system_stats_names_the_machine_and_each_device_once() -> None:
    async def test(site: Site) -> None:
        stats = await site.json("GET", "/system_stats")
        assert stats["system"]["os"] == os.name
        assert stats["system"]["python_version"] == sys.version
        assert stats["system"]["comfyui_version"] == "0.3.64"
        assert stats["system"]["argv"] == ["main.py", "--cpu"]
        (device,) = stats["devices"]
        assert list(device) == ["name", "type", "index", "vram_total", "vram_free", "torch_vram_total", "torch_vram_free"]
        assert (device["name"], device["type"], device["index"]) == ("cpu", "cpu", None)
        assert device["vram_total"] == stats["system"]["ram_total"] > device["vram_free"] > 0

    with_site(test, argv=("main.py", "--cpu"))


def test_features_tell_the_upload_limit() -> None:
    async def test(site: Site) -> None:
        assert await site.json("GET", "/features") == {"supports_preview_metadata": True, "max_upload_size": 5}

    with_site(test, max_upload_bytes=5)


def test_versions_of_packages_that_are_and_are_not_there() -> None:
    assert installed_version("no-such-package-here") is None
    assert json.dumps(installed_version("aiohttp")).startswith('"3.')
