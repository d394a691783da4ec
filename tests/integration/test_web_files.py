"""The file routes in the whole server: prefixes, precedence, and a picture's way from upload through a node to /view."""

import asyncio
import io
import json

import numpy as np
import pytest
import torch
from aiohttp.test_utils import TestClient, TestServer
from PIL import Image

from comfy import folders as comfy_folders
from comfy.nodes.image import LoadImage, PreviewImage, SaveImage
from comfy.nodes.registry import NodeRegistry
from comfy.web import logbuffer
from server import PromptServer
from tests.unit.folders.helpers import config_in, put
from tests.unit.web_files.helpers import form, png


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setattr(comfy_folders, "_current", None)
    monkeypatch.setattr(logbuffer, "_installed", None)
    put(tmp_path / "root" / "index.html", "<html></html>")
    put(tmp_path / "root" / "extensions" / "core" / "q.js", "core")
    return tmp_path


def talk(base, story, **config):
    """Run `story(client, server)` against a server with all routes; its answer."""

    async def run():
        folders = comfy_folders.configure(config_in(base, front_end_root=base / "root", **config), base)
        server = PromptServer(folders.config, NodeRegistry(), folders)
        server.add_routes()
        async with TestClient(TestServer(server.app)) as client:
            return await story(client, server)

    return asyncio.run(run())


PATHS = [
    "/users",
    "/settings",
    "/settings/x",
    "/userdata?dir=d",
    "/v2/userdata",
    "/models",
    "/models/vae",
    "/experiment/models",
    "/experiment/models/vae",
    "/embeddings",
    "/extensions",
    "/workflow_templates",
    "/i18n",
    "/view?filename=x.png",
]


def test_every_route_answers_under_both_prefixes(base):
    async def story(client, server):
        put(base / "output" / "x.png", png())
        put(base / "user" / "default" / "d" / "f")
        return [((await client.get(path)).status, (await client.get("/api" + path)).status) for path in PATHS]

    assert set(talk(base, story)) == {(200, 200)}


def test_internal_routes_have_no_twin(base):
    async def story(client, server):
        paths = ("/internal/logs", "/internal/logs/raw", "/internal/folder_paths", "/internal/files/output")
        return [((await client.get(path)).status, (await client.get("/api" + path)).status) for path in paths]

    assert set(talk(base, story)) == {(200, 404)}


def test_picture_goes_round(base):
    async def story(client, server):
        answer = await (await client.post("/api/upload/image", data=form(png(6, 4, "RGBA"), "in.png", subfolder="s"))).json()
        name = f"{answer['subfolder']}/{answer['name']} [{answer['type']}]"
        assert LoadImage.VALIDATE_INPUTS(name) is True
        image, mask = await asyncio.to_thread(LoadImage().load_image, name)
        assert (tuple(image.shape), tuple(mask.shape)) == ((1, 4, 6, 3), (1, 4, 6))
        (saved,) = SaveImage().save_images(image, "out/x", {"1": {"class_type": "LoadImage"}}, {"workflow": {}})["ui"]["images"]
        (shown,) = PreviewImage().save_images(image)["ui"]["images"]
        for file in (saved, shown):
            response = await client.get("/view", params=file)
            assert (response.status, response.headers["Content-Type"]) == (200, "image/png")
            picture = Image.open(io.BytesIO(await response.read()))
            assert picture.size == (6, 4)
            assert torch.equal(image, torch.from_numpy(np.array(picture.convert("RGB"))[None]) / 255)
        listed = await (await client.get("/internal/files/temp")).json()
        assert listed == [shown["filename"]]

    talk(base, story)


def test_errors_are_json_of_one_form(base):
    async def story(client, server):
        answers = []
        for path in (
            "/view?filename=..",
            "/models/nope",
            "/userdata/nope",
            "/userdata?dir=..",
            "/view_metadata/vae?filename=a.safetensors",
        ):
            response = await client.get(path)
            body = json.loads(await response.read())
            answers.append((response.status, body["error"]["type"], set(body["error"])))
        return answers

    members = {"type", "message", "details", "extra_info"}
    assert talk(base, story) == [
        (400, "file_name_invalid", members),
        (404, "folder_unknown", members),
        (404, "file_missing", members),
        (403, "path_outside", members),
        (404, "file_missing", members),
    ]


def test_front_end_files_and_pack_files_share_extensions(base):
    async def story(client, server):
        put(base / "pack" / "p.js", "pack")
        server.folders.web_dirs["pack"] = str(base / "pack")
        listed = await (await client.get("/extensions")).json()
        return listed, [await (await client.get(path)).text() for path in listed]

    listed, files = talk(base, story)
    assert listed == ["/extensions/core/q.js", "/extensions/server/absent_loaders.js", "/extensions/pack/p.js"]
    assert (files[0], files[2]) == ("core", "pack")
    assert "app.registerExtension" in files[1]


def test_user_files_take_whole_path_segments_only(base):
    async def story(client, server):
        return [(await client.post(path, data=b"{}")).status for path in ("/userdata/a%2Fb.json", "/userdata/a/b.json")]

    assert talk(base, story) == [200, 405]


def test_cache_headers_leave_view_alone(base):
    async def story(client, server):
        put(base / "output" / "x.png", png())
        shown = await client.get("/view?filename=x.png")
        return shown.headers.get("Cache-Control"), shown.headers["ETag"] != ""

    assert talk(base, story) == (None, True)
