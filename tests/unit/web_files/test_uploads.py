"""POST /upload/image and /upload/mask: http-api.md section 6, with the marked defects mended."""

import asyncio
import io
import json
import os

import pytest
from aiohttp import FormData
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from comfy.web import files
from tests.unit.folders.helpers import put
from tests.unit.web_files.helpers import form, make_server, png, talk


@pytest.fixture
def server(tmp_path):
    return make_server(tmp_path, files, max_upload_bytes=100_000)


def post(server, *bodies, path="/upload/image"):
    async def story(client):
        answers = []
        for body in bodies:
            response = await client.post(path, data=body)
            answers.append((response.status, await response.json()))
        return answers if len(answers) > 1 else answers[0]

    return talk(server, story)


def test_upload_is_stored_and_echoed(server, tmp_path):
    assert post(server, form(b"1")) == (200, {"name": "a.png", "subfolder": "", "type": "input"})
    assert (tmp_path / "input" / "a.png").read_bytes() == b"1"
    answer = post(server, form(b"2", "b.txt", type="temp", subfolder="x//y/"))
    assert answer == (200, {"name": "b.txt", "subfolder": "x//y/", "type": "temp"})
    assert (tmp_path / "temp" / "x" / "y" / "b.txt").read_bytes() == b"2"


def test_taken_names_are_numbered_and_equal_bytes_found_again(server, tmp_path):
    answers = post(
        server, form(b"1"), form(b"1"), form(b"2"), form(b"3"), form(b"2"), form(b"4", overwrite="true"), form(b"5", overwrite="yes")
    )
    assert [body["name"] for _, body in answers] == ["a.png", "a.png", "a (1).png", "a (2).png", "a (1).png", "a.png", "a (3).png"]
    assert (tmp_path / "input" / "a.png").read_bytes() == b"4"
    assert sorted(os.listdir(tmp_path / "input")) == ["a (1).png", "a (2).png", "a (3).png", "a.png"]


def test_uploads_of_one_name_at_once_all_survive(server, tmp_path):
    async def story(client):
        responses = await asyncio.gather(*(client.post("/upload/image", data=form(b"%d" % index)) for index in range(12)))
        return [(await response.json())["name"] for response in responses]

    names = talk(server, story)
    assert len(set(names)) == 12
    assert {(tmp_path / "input" / name).read_bytes() for name in names} == {b"%d" % index for index in range(12)}


@pytest.mark.parametrize(
    "body",
    [
        form("text", None),
        form(b"x", ""),
        form(type="user"),
        form(subfolder="../evil"),
        form(subfolder="/etc"),
        form(name="../a.png"),
        form(name="..\\a.png"),
        form(name="s/"),
        form(name="folder"),
        form(name="n" * 300),
        form(subfolder="link"),
        form(name="link.png", overwrite="true"),
        form(subfolder="file.txt"),
        form(subfolder="s\0"),
        b"not multipart",
        {"image": "x"},
    ],
)
def test_unusable_uploads_are_typed_400_and_write_nothing(server, tmp_path, body):
    (tmp_path / "input" / "folder").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    put(tmp_path / "outside.png", b"outside")
    put(tmp_path / "input" / "file.txt")
    (tmp_path / "input" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "input" / "link.png").symlink_to(tmp_path / "outside.png")
    status, answer = post(server, body)
    assert (status, set(answer)) == (400, {"error", "node_errors"})
    assert str(tmp_path) not in json.dumps(answer)
    assert sorted(os.listdir(tmp_path / "input")) == ["file.txt", "folder", "link", "link.png"]
    assert os.listdir(tmp_path / "outside") == []
    assert (tmp_path / "outside.png").read_bytes() == b"outside"


def test_file_name_with_a_folder_creates_it(server, tmp_path):
    assert post(server, form(b"1", "new/a.png")) == (200, {"name": "new/a.png", "subfolder": "", "type": "input"})
    assert (tmp_path / "input" / "new" / "a.png").read_bytes() == b"1"


@pytest.mark.filterwarnings("ignore::aiohttp.multipart.BadContentDispositionHeader")
@pytest.mark.parametrize("name", ["a;b.png", "a;b;c.png", "a; b; c.png", "a=b;c=d;e.png", "日;本;.png", "100%.png", "a'b (1).png"])
def test_odd_names_are_kept(server, tmp_path, name):
    assert post(server, form(b"1", name))[1]["name"] == name
    assert (tmp_path / "input" / name).read_bytes() == b"1"


def test_broken_multipart_is_a_typed_400(server):
    async def story(client):
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        statuses = []
        for body in (b"", b"--x\r\n", b"--y\r\n\r\n", b"--x\r\nContent-Disposition: form-data; name=image; filename=a\r\n\r\nabc"):
            statuses.append((await client.post("/upload/image", data=body, headers=headers)).status)
        statuses.append((await client.post("/upload/image", data=b"x", headers={"Content-Type": "multipart/form-data"})).status)
        return statuses

    assert set(talk(server, story)) == {400}


def test_body_over_the_limit_is_413(server):
    assert post(server, form(b"x" * 200_000))[0] == 413


# -- masks -------------------------------------------------------------------------------------------------------------------


def mask_form(data, reference, name="m.png", **fields):
    return form(data, name, original_ref=reference if isinstance(reference, str) else json.dumps(reference), **fields)


@pytest.fixture
def original(tmp_path):
    info = PngInfo()
    info.add_text("workflow", "{}")
    put(tmp_path / "output" / "s" / "o.png", png(4, 3, "RGB", (1, 2, 3), pnginfo=info))
    put(tmp_path / "input" / "i.png", png(4, 3))
    put(tmp_path / "input" / "text.png", b"text")
    put(tmp_path / "secret.png", png(4, 3))
    return {"filename": "o.png", "subfolder": "s"}


def test_mask_replaces_the_alpha_and_keeps_texts(server, tmp_path, original):
    answer = post(server, mask_form(png(4, 3, "RGBA", (9, 9, 9, 77)), original), path="/upload/mask")
    assert answer == (200, {"name": "m.png", "subfolder": "", "type": "input"})
    stored = Image.open(tmp_path / "input" / "m.png")
    assert (stored.format, stored.mode, stored.getpixel((0, 0)), stored.text) == ("PNG", "RGBA", (1, 2, 3, 77), {"workflow": "{}"})


def test_mask_without_alpha_is_opaque_and_references_may_be_annotated(server, tmp_path, original):
    assert post(server, mask_form(png(4, 3), {"filename": "i.png [input]"}), path="/upload/mask")[0] == 200
    assert Image.open(io.BytesIO((tmp_path / "input" / "m.png").read_bytes())).getpixel((0, 0))[3] == 255


@pytest.mark.parametrize(
    ("reference", "status"),
    [
        ({"filename": "no.png"}, 404),
        ({"filename": "o.png", "subfolder": "s", "type": "input"}, 404),
        ({"filename": "o.png", "subfolder": "s", "type": "user"}, 400),
        ({"filename": "secret.png", "subfolder": ".."}, 403),
        ({"filename": "../secret.png"}, 400),
        ({"filename": "text.png", "type": "input"}, 400),
        ({"filename": 3}, 400),
        ({}, 404),
        ("[]", 400),
        ("null", 400),
        ("no json", 400),
        ("[" * 100_000, 413),
        ("[" * 50_000, 400),
        ("", 400),
        ('{"filename": "\\ud800.png"}', 400),
    ],
)
def test_mask_for_an_unusable_original_is_refused_and_stores_nothing(server, tmp_path, original, reference, status):
    before = sorted(os.listdir(tmp_path / "input"))
    assert post(server, mask_form(png(4, 3, "RGBA"), reference), path="/upload/mask")[0] == status
    assert sorted(os.listdir(tmp_path / "input")) == before


@pytest.mark.parametrize("mask", [png(5, 3, "RGBA"), b"no picture", png(30, 30, "RGBA")[:100]])
def test_mask_of_another_size_or_kind_is_refused(server, tmp_path, original, mask):
    status, answer = post(server, mask_form(mask, original), path="/upload/mask")
    assert (status, answer["error"]["type"]) == (400, "image_unreadable")
    assert not (tmp_path / "input" / "m.png").exists()


def test_mask_needs_its_reference(server, original):
    assert post(server, form(png(4, 3, "RGBA")), path="/upload/mask")[0] == 400
    body = FormData()
    body.add_field("image", png(4, 3, "RGBA"), filename="m.png")
    body.add_field("original_ref", b"{}", filename="f.json")
    assert post(server, body, path="/upload/mask")[0] == 400
