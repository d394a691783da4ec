"""Random names on every file route: no 500, no path of the server in an answer, nothing changed outside the four folders."""

import random
from urllib.parse import quote

import pytest

from comfy.web import extensions, files, internal, models, settings, userdata, users, view
from tests.unit.folders.helpers import put
from tests.unit.web_files.helpers import form, make_server, png, talk

PIECES = (
    "..", ".", "/", "\\", "%2e", "%2F", "%00", "\0", "~", " [output]", "[input]", " [temp]", "a", "a.png", "sub",
    "link", "é", "日", "\udc80", "x" * 300, "//", "C:", "\r\n", "'\"", "%", "..;", "con", "?", "#", "&", ".part-", ".lock", "users.json",
)  # fmt: skip
ROUTES = (
    ("GET", "/view?filename={}&subfolder={}&type={}"),
    ("GET", "/view?filename={}&preview={}&channel={}"),
    ("GET", "/userdata?dir={}&recurse=true&full_info={}"),
    ("GET", "/v2/userdata?path={}"),
    ("GET", "/userdata/{}"),
    ("POST", "/userdata/{}?overwrite={}"),
    ("POST", "/userdata/{}/move/{}"),
    ("DELETE", "/userdata/{}"),
    ("GET", "/settings/{}"),
    ("POST", "/settings/{}"),
    ("GET", "/models/{}"),
    ("GET", "/experiment/models/{}"),
    ("GET", "/experiment/models/preview/{}/{}/{}"),
    ("GET", "/experiment/models/preview/checkpoints/0/{}"),
    ("GET", "/view_metadata/{}?filename={}"),
    ("GET", "/view_metadata/checkpoints?filename={}.safetensors"),
    ("GET", "/extensions/{}/{}"),
    ("GET", "/api/workflow_templates/{}/{}"),
    ("GET", "/templates/{}"),
    ("GET", "/docs/{}"),
    ("GET", "/internal/files/{}"),
)
EXPECTED = {200, 204, 206, 400, 403, 404, 405, 409, 422}


@pytest.mark.filterwarnings("ignore::aiohttp.multipart.BadContentDispositionHeader")
@pytest.mark.parametrize("seed", range(4))
def test_random_names_get_typed_answers_and_stay_inside(tmp_path, seed):
    base = tmp_path / "base"
    put(base / "output" / "a.png", png())
    put(base / "output" / "sub" / "a", "text")
    put(base / "input" / "a.png", png())
    put(base / "user" / "default" / "sub" / "a.png", "text")
    put(base / "models" / "checkpoints" / "a.safetensors", "broken")
    put(tmp_path / "outside" / "a.png", b"outside")
    put(base / "a.png", b"outside")
    for kind in ("input", "output", "user/default"):
        (base / kind / "link").symlink_to(tmp_path / "outside")
    server = make_server(base, files, view, users, settings, userdata, models, extensions, internal)
    rng = random.Random(seed)

    def word():
        return "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 4)))

    def sendable(text):  # by the client library, in a form
        return text.replace("\udc80", "")

    async def story(client):
        for _ in range(150):
            if rng.random() < 0.15:
                name, subfolder = sendable(word()).replace("\0", "").replace("\r\n", ""), sendable(word())
                kind = rng.choice(("input", "temp", sendable(word())))
                data = form(png(), name, subfolder=subfolder, type=kind, overwrite=rng.choice(("true", "no")))
                asked, response = f"upload {name!r}", await client.post("/upload/image", data=data)
            else:
                method, pattern = rng.choice(ROUTES)
                path = pattern.format(*(quote(word().encode("utf-8", "surrogateescape"), safe="") for _ in range(3)))
                asked, response = f"{method} {path}", await client.request(method, path, data=b"1" if method == "POST" else None)
            body = await response.read()
            assert response.status in EXPECTED, (asked, response.status, body[:300])
            if response.status >= 400:
                assert str(tmp_path).encode() not in body, asked
            assert body != b"outside", asked

    talk(server, story)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "outside"]
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["a.png"]
    assert (tmp_path / "outside" / "a.png").read_bytes() == (base / "a.png").read_bytes() == b"outside"
    assert {path.name for path in base.iterdir()} <= {"output", "input", "user", "temp", "models", "a.png"}
    assert {path.name for path in (base / "user").iterdir()} == {"default"}
