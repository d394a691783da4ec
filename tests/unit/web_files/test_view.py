"""GET /view: http-api.md section 6, with the marked defects mended."""

import io
import os

import pytest
from PIL import Image

from comfy.web import view
from comfy.web.served import disposition
from tests.unit.folders.helpers import put
from tests.unit.web_files.helpers import make_server, png, talk


@pytest.fixture
def server(tmp_path):
    put(tmp_path / "output" / "x.png", png(4, 3))
    put(tmp_path / "output" / "rgba.png", png(2, 2, "RGBA", (10, 20, 30, 40)))
    put(tmp_path / "output" / "s" / "deep" / "x.png", png(5, 3))
    put(tmp_path / "input" / "i.png", png(6, 3))
    put(tmp_path / "temp" / "t.png", png(7, 3))
    put(tmp_path / "output" / "text.txt", "hello")
    put(tmp_path / "secret.png", png(9, 9))
    (tmp_path / "output" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "output" / "out").symlink_to(tmp_path)
    return make_server(tmp_path, view)


def get(server, **params):
    headers = params.pop("headers", None)

    async def story(client):
        response = await client.get("/view", params=params, headers=headers)
        return response.status, response.headers, await response.read()

    return talk(server, story)


def size_of(answer):
    assert answer[0] == 200
    return Image.open(io.BytesIO(answer[2])).size


@pytest.mark.parametrize(
    ("params", "size"),
    [
        ({"filename": "x.png"}, (4, 3)),
        ({"filename": "x.png", "subfolder": "s/deep", "rand": "0.1"}, (5, 3)),
        ({"filename": "s/deep/x.png"}, (5, 3)),  # the reference drops the folder and shows another picture
        ({"filename": "deep/x.png", "subfolder": "s"}, (5, 3)),
        ({"filename": "i.png", "type": "input"}, (6, 3)),
        ({"filename": "t.png [temp]", "type": "input"}, (7, 3)),
        ({"filename": "i.png[input]"}, (6, 3)),
    ],
)
def test_files_are_found_by_name_type_and_subfolder(server, params, size):
    assert size_of(get(server, **params)) == size


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({}, 404),
        ({"filename": ""}, 400),
        ({"filename": "[input]"}, 400),
        ({"filename": "/etc/passwd"}, 400),
        ({"filename": "\\x.png"}, 400),
        ({"filename": "a..b.png"}, 400),
        ({"filename": "..\\secret.png"}, 400),
        ({"filename": "a\0.png"}, 400),
        ({"filename": "x.png", "type": "user"}, 400),
        ({"filename": "secret.png", "subfolder": ".."}, 403),
        ({"filename": "x.png", "subfolder": "/etc"}, 403),
        ({"filename": "secret.png", "subfolder": "out"}, 403),
        ({"filename": "link.png"}, 403),
        ({"filename": "x.png", "subfolder": "s\0"}, 400),
        ({"filename": "no.png"}, 404),
        ({"filename": "s"}, 404),
        ({"filename": "x.png/y"}, 404),
        ({"filename": "n" * 400}, 404),
    ],
)
def test_refusals_are_typed_and_keep_the_status(server, tmp_path, params, status):
    got, headers, body = get(server, **params)
    assert got == status
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert b'"type"' in body
    assert str(tmp_path).encode() not in body


def test_preview_formats(server):
    def preview(name="rgba.png", **params):
        status, headers, body = get(server, filename=name, **params)
        assert status == 200
        return headers["Content-Type"], Image.open(io.BytesIO(body))

    for params, kind, mode in [
        ({"preview": "webp;80"}, "webp", "RGBA"),
        ({"preview": "jpeg;80"}, "jpeg", "RGB"),
        ({"preview": "png"}, "webp", "RGBA"),
        ({"preview": ""}, "webp", "RGBA"),
        ({"preview": "webp;0"}, "webp", "RGBA"),
        ({"preview": "webp;9999"}, "webp", "RGBA"),
        ({"preview": "jpeg;x"}, "jpeg", "RGB"),
        ({"preview": "jpeg", "channel": "a"}, "webp", "RGBA"),
        ({"preview": "webp", "channel": "rgb"}, "webp", "RGB"),
    ]:
        content_type, image = preview(**params)
        assert (content_type, image.format, image.mode) == (f"image/{kind}", kind.upper(), mode)
    assert len(get(server, filename="x.png", preview="jpeg;5")[2]) < len(get(server, filename="x.png", preview="jpeg;95")[2])


def test_channels(server):
    _, headers, body = get(server, filename="rgba.png", channel="rgb")
    assert (headers["Content-Type"], Image.open(io.BytesIO(body)).getpixel((0, 0))) == ("image/png", (10, 20, 30))
    assert Image.open(io.BytesIO(get(server, filename="rgba.png", channel="a")[2])).getpixel((0, 0)) == (0, 0, 0, 40)
    assert Image.open(io.BytesIO(get(server, filename="x.png", channel="a")[2])).getpixel((0, 0)) == (0, 0, 0, 255)
    assert get(server, filename="rgba.png", channel="rgba")[2] == get(server, filename="rgba.png")[2]


@pytest.mark.parametrize("params", [{"preview": "webp"}, {"channel": "rgb"}, {"channel": "a"}])
@pytest.mark.parametrize("name", ["text.txt", "cut.png"])
def test_preview_of_what_is_no_picture_is_a_typed_400(server, tmp_path, name, params):
    put(tmp_path / "output" / "cut.png", png(50, 50)[:200])
    status, _, body = get(server, filename=name, **params)
    assert (status, b"image_unreadable" in body) == (400, True)


@pytest.mark.parametrize(
    ("name", "kind", "attachment"),
    [
        ("a.html", "application/octet-stream", True),
        ("a.xhtml", "application/octet-stream", True),
        ("a.HTM", "application/octet-stream", True),
        ("a.js", "application/octet-stream", True),
        ("a.mjs", "application/octet-stream", True),
        ("a.css", "application/octet-stream", True),
        ("a.xml", "application/octet-stream", True),
        ("a.svg", "image/svg+xml", True),
        ("a.unknown", "application/octet-stream", True),
        ("a.latent", "application/octet-stream", True),
        ("a.png", "image/png", False),
        ("a.webp", "image/webp", False),
        ("a.mp4", "video/mp4", False),
        ("a.flac", "audio/flac", False),
        ("a.glb", "model/gltf-binary", False),
        ("a.json", "application/json", False),
        ("a.txt", "text/plain", False),
    ],
)
def test_no_file_is_active_in_the_browser(server, tmp_path, name, kind, attachment):
    put(tmp_path / "output" / name, "<script>alert(1)</script>")
    status, headers, _ = get(server, filename=name)
    assert (status, headers["Content-Type"]) == (200, kind)
    assert headers["Content-Disposition"].startswith("attachment;" if attachment else "inline;")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"].startswith("sandbox;")


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("x_00001_.png", 'inline; filename="x_00001_.png"'),
        ('a";x.png', "inline; filename=\"a_;x.png\"; filename*=UTF-8''a%22%3Bx.png"),
        ("a\r\nSet-Cookie: b.png", "inline; filename=\"a__Set-Cookie: b.png\"; filename*=UTF-8''a%0D%0ASet-Cookie%3A%20b.png"),
        ("日.png", "inline; filename=\"_.png\"; filename*=UTF-8''%E6%97%A5.png"),
        ("a\\b.png", "inline; filename=\"a_b.png\"; filename*=UTF-8''a%5Cb.png"),
        (os.fsdecode(b"\xe9.png"), "inline; filename=\"_.png\"; filename*=UTF-8''%E9.png"),
    ],
)
def test_disposition_is_escaped(name, header):
    assert disposition(name) == header


def test_name_that_would_split_the_header_is_served_safely(server, tmp_path):
    put(tmp_path / "output" / 'q"\r\nX-Evil: 1.png', png())
    status, headers, _ = get(server, filename='q"\r\nX-Evil: 1.png')
    assert status == 200
    assert "X-Evil" not in headers


def test_range_and_conditional_requests(server):
    status, headers, body = get(server, filename="text.txt")
    assert (status, body, headers["Accept-Ranges"]) == (200, b"hello", "bytes")
    status, ranged, body = get(server, filename="text.txt", headers={"Range": "bytes=1-2"})
    assert (status, body, ranged["Content-Range"]) == (206, b"el", "bytes 1-2/5")
    assert get(server, filename="text.txt", headers={"If-None-Match": headers["ETag"]})[0] == 304


def test_head_has_no_body(server):
    async def story(client):
        response = await client.head("/view", params={"filename": "text.txt"})
        return response.status, response.headers["Content-Length"], await response.read()

    assert talk(server, story) == (200, "5", b"")
