"""/models, /experiment/models, /view_metadata, /embeddings: http-api.md section 5, with the marked defects mended."""

import base64
import io
import json
import os

import pytest
from PIL import Image

from comfy.web import models
from tests.unit.folders.helpers import put
from tests.unit.web_files.helpers import make_server, png
from tests.unit.web_files.test_users import ask


def safetensors(metadata=None, **entries):
    header = {**({} if metadata is None else {"__metadata__": metadata}), **entries}
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw


@pytest.fixture
def server(tmp_path):
    root = tmp_path / "models"
    put(root / "checkpoints" / "a.safetensors", safetensors({"modelspec.title": "T", "n": "1"}))
    put(root / "checkpoints" / "sub" / "n.safetensors", safetensors())
    put(root / "checkpoints" / ".hid" / "x.safetensors", safetensors())
    put(root / "checkpoints" / ".hid.ckpt", "x")
    put(root / "checkpoints" / "note.txt", "x")
    put(root / "embeddings" / "e" / "emb.pt")
    put(root / "embeddings" / "b.x.safetensors")
    put(root / "text_encoders" / "t.safetensors", safetensors({"k": "v"}))
    put(tmp_path / "secret.png", png(9, 9))
    return make_server(tmp_path, models)


def test_lists(server):
    answers = ask(server, ("GET", "/models"), ("GET", "/models/checkpoints"), ("GET", "/embeddings"), ("GET", "/models/custom_nodes"))
    assert answers[0] == (200, list(server.folders.names))
    assert answers[1] == (200, [".hid.ckpt", ".hid/x.safetensors", "a.safetensors", "sub/n.safetensors"])
    assert answers[2] == (200, ["b.x", "e/emb"])
    assert answers[3] == (200, [])


@pytest.mark.parametrize(
    "path", ["/models/unet", "/models/clip", "/models/nope", "/experiment/models/nope", "/experiment/models/clip", "/models/a%00"]
)
def test_unknown_folders_are_404(server, path):
    assert ask(server, ("GET", path))[0] == 404


def test_detailed_lists(server, tmp_path):
    (_, kinds), (_, files) = ask(server, ("GET", "/experiment/models"), ("GET", "/experiment/models/checkpoints"))
    assert kinds[0] == {
        "name": "checkpoints",
        "folders": [str(tmp_path / "models" / "checkpoints"), str(tmp_path / "output" / "checkpoints")],
    }
    assert {"configs", "custom_nodes"}.isdisjoint(kind["name"] for kind in kinds)
    assert [file["name"] for file in files] == ["a.safetensors", "sub/n.safetensors"]
    status = os.stat(tmp_path / "models" / "checkpoints" / "a.safetensors")
    assert files[0] == {
        "name": "a.safetensors",
        "pathIndex": 0,
        "modified": status.st_mtime,
        "created": status.st_ctime,
        "size": status.st_size,
    }


def test_metadata(server):
    path = "/view_metadata/checkpoints?filename="
    answers = ask(
        server,
        ("GET", path + "a.safetensors"),
        ("GET", path + "../../a.safetensors"),
        ("GET", "/view_metadata/clip?filename=t.safetensors"),
    )
    assert answers == [(200, {"modelspec.title": "T", "n": "1"})] * 2 + [(200, {"k": "v"})]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("checkpoints", 404),
        ("checkpoints?filename=", 404),
        ("checkpoints?filename=a.ckpt", 404),
        ("checkpoints?filename=no.safetensors", 404),
        ("checkpoints?filename=sub/n.safetensors", 404),
        ("nope?filename=a.safetensors", 404),
        ("checkpoints?filename=a%00.safetensors", 404),
        ("checkpoints?filename=empty.safetensors", 422),
        ("checkpoints?filename=short.safetensors", 422),
        ("checkpoints?filename=six.safetensors", 422),
        ("checkpoints?filename=text.safetensors", 404),
        ("checkpoints?filename=list.safetensors", 404),
        ("checkpoints?filename=deep.safetensors", 422),
        ("checkpoints?filename=huge.safetensors", 404),
        ("checkpoints?filename=notmap.safetensors", 404),
    ],
)
def test_metadata_that_is_absent_or_broken_is_typed(server, tmp_path, query, status):
    folder = tmp_path / "models" / "checkpoints"
    put(folder / "empty.safetensors", b"")
    put(folder / "short.safetensors", (50).to_bytes(8, "little") + b"{")
    put(folder / "six.safetensors", b"broken")
    put(folder / "text.safetensors", b"this is no model file at all")
    put(folder / "list.safetensors", (2).to_bytes(8, "little") + b"[]")
    put(folder / "deep.safetensors", (100_000).to_bytes(8, "little") + b"[" * 100_000)
    put(folder / "huge.safetensors", (2**20 + 1).to_bytes(8, "little") + b" " * 2**20 + b"{")
    put(folder / "notmap.safetensors", safetensors("text"))
    got, body = ask(server, ("GET", "/view_metadata/" + query))
    assert (got, set(body)) == (status, {"error", "node_errors"})
    assert str(tmp_path) not in json.dumps(body)


PREVIEW = "/experiment/models/preview/checkpoints/"


def preview_size(answer):
    status, body = answer
    assert status == 200
    image = Image.open(io.BytesIO(body))
    assert image.format == "WEBP"
    return image.size


def test_previews_beside_the_model_and_inside_it(server, tmp_path):
    folder = tmp_path / "models" / "checkpoints"
    put(folder / "sub" / "n.preview.png", png(6, 5))
    put(folder / "sub" / "n.json", "{}")
    put(folder / "a.png", b"broken")
    cover = base64.b64encode(png(3, 2)).decode()
    put(folder / "c.safetensors", safetensors({"ssmd_cover_images": json.dumps([cover])}))
    put(folder / "d.safetensors", safetensors({"ssmd_cover_images": json.dumps(["data:image/png;base64," + cover])}))
    put(folder / "a.safetensors", safetensors({"ssmd_cover_images": json.dumps(["!!!", cover])}))
    answers = ask(
        server, *(("GET", PREVIEW + "0/" + name) for name in ("sub/n.safetensors", "c.safetensors", "d.safetensors", "sub%2Fn.safetensors"))
    )
    assert [preview_size(answer) for answer in answers] == [(6, 5), (3, 2), (3, 2), (6, 5)]


@pytest.mark.parametrize(
    ("tail", "status"),
    [
        ("0/a.safetensors", 404),
        ("0/no.safetensors", 404),
        ("9/a.safetensors", 404),
        ("-1/a.safetensors", 404),
        ("x/a.safetensors", 404),
        ("٣/a.safetensors", 404),
        ("0/..%2F..%2F..%2Fsecret.safetensors", 404),
        ("0/sub%2F..%2F..%2F..%2Fsecret.png", 404),
        ("0/%2Fetc%2Fsecret.png", 403),
        ("0/..%5C..%5Csecret.png", 403),
        ("0/a%00b", 400),
        ("0/", 404),
    ],
)
def test_previews_show_nothing_else(server, tmp_path, tail, status):
    put(tmp_path / "models" / "secret.png", png(9, 9))
    got, body = ask(server, ("GET", PREVIEW + tail))
    assert (got, set(body)) == (status, {"error", "node_errors"})


@pytest.mark.parametrize("covers", ['"text"', "[1, null]", "{", "[]", json.dumps(["AAAA"]), "[" * 50_000])
def test_broken_covers_are_no_preview(server, tmp_path, covers):
    put(tmp_path / "models" / "checkpoints" / "c.safetensors", safetensors({"ssmd_cover_images": covers}))
    assert ask(server, ("GET", PREVIEW + "0/c.safetensors"))[0] == 404
