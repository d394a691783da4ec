"""http-api.md sections 6 to 9: uploads, /view, settings, user files, front end, packs, internal routes."""

from __future__ import annotations

import io
import json
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from PIL import Image

from tests.conformance.site import Answer, Site, node


def png(color: tuple[int, ...] = (255, 0, 0), size: tuple[int, int] = (8, 6), **text: str) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    info, data = PngInfo(), io.BytesIO()
    for key, value in text.items():
        info.add_text(key, value)
    Image.new("RGB" if len(color) == 3 else "RGBA", size, color).save(data, "PNG", pnginfo=info)
    return data.getvalue()


def upload(site: Site, name: str, data: bytes, route: str = "image", **fields: str) -> Answer:
    form = aiohttp.FormData(quote_fields=False)
    form.add_field("image", io.BytesIO(data), filename=name)
    for key, value in fields.items():
        form.add_field(key, value)
    return site.request("POST", f"/upload/{route}", data=form)


def test_uploads_get_free_names_and_equal_bytes_share_one(site: Site) -> None:
    red, blue = png(), png((0, 0, 255))
    assert upload(site, "a.png", red).json() == {"name": "a.png", "subfolder": "", "type": "input"}
    assert upload(site, "a.png", red).json()["name"] == "a.png"
    assert upload(site, "a.png", blue).json()["name"] == "a (1).png"
    assert upload(site, "a.png", blue).json()["name"] == "a (1).png"
    assert upload(site, "a.png", blue, overwrite="yes").json()["name"] == "a (1).png"
    assert upload(site, "a.png", blue, overwrite="true").json()["name"] == "a.png"
    assert (site.base / "input/a.png").read_bytes() == blue
    answer = upload(site, "b.txt", b"text", subfolder="x/./y", type="temp").json()
    assert answer == {"name": "b.txt", "subfolder": "x/./y", "type": "temp"}
    assert (site.base / "temp/x/y/b.txt").read_bytes() == b"text"


@pytest.mark.parametrize(
    ("name", "fields"),
    [("", {}), ("../a.png", {}), ("a.png", {"subfolder": "../evil"}), ("a.png", {"subfolder": "/etc"}), ("a.png", {"type": "elsewhere"})],
)
def test_refused_uploads(site: Site, name: str, fields: dict[str, str]) -> None:
    if name:
        assert upload(site, name, b"x", **fields).status == 400
    for body, kind in ((b"{}", "application/json"), (b"--x--\r\n", "multipart/form-data; boundary=x"), (b"", "multipart/form-data")):
        assert site.request("POST", "/upload/image", data=body, headers={"Content-Type": kind}).status == 400
    assert not (site.base / "evil").exists()


def test_a_mask_becomes_the_originals_alpha(site: Site) -> None:
    upload(site, "original.png", png((1, 2, 3), workflow="{}"), type="input")
    reference = json.dumps({"filename": "original.png", "type": "input", "subfolder": ""})
    answer = upload(site, "masked.png", png((0, 0, 0, 77)), "mask", original_ref=reference, type="input")
    assert answer.json() == {"name": "masked.png", "subfolder": "", "type": "input"}
    with Image.open(site.base / "input/masked.png") as picture:
        assert (picture.mode, picture.getpixel((0, 0)), picture.info["workflow"]) == ("RGBA", (1, 2, 3, 77), "{}")
    gone = json.dumps({"filename": "gone.png", "type": "input"})
    assert upload(site, "m2.png", png(), "mask", original_ref=gone).status == 404
    for bad in ("no json", "[]", "{}"):
        assert upload(site, "m2.png", png(), "mask", original_ref=bad).status in (400, 404)
    assert not (site.base / "input/m2.png").exists()


@pytest.fixture
def seen(site: Site) -> Site:
    for kind in ("input", "output", "temp"):
        (site.base / kind / "v").mkdir(parents=True, exist_ok=True)
        (site.base / kind / "v" / "p.png").write_bytes(png((9, 8, 7, 128)))
        (site.base / kind / "page.html").write_text("<script>1</script>")
        (site.base / kind / "p.png").write_bytes(png((9, 8, 7)))
    return site


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("filename=p.png", 200),
        ("filename=p.png&type=input", 200),
        ("filename=p.png%20%5Btemp%5D&type=nonsense", 200),
        ("filename=p.png&subfolder=v&type=temp&rand=0.3&t=1", 200),
        ("", 404),
        ("filename=", 400),
        ("filename=%20%5Binput%5D", 400),
        ("filename=/etc/passwd", 400),
        ("filename=../p.png", 400),
        ("filename=a..b.png", 400),
        ("filename=p.png&type=elsewhere", 400),
        ("filename=p.png&subfolder=..", 403),
        ("filename=p.png&subfolder=/etc", 403),
        ("filename=gone.png", 404),
        ("filename=page.html&preview=webp", 400),
        ("filename=page.html&channel=a", 400),
        ("filename=%00", 400),
    ],
)
def test_what_view_finds(seen: Site, query: str, status: int) -> None:
    answer = seen.get(f"/view?{query}")
    assert answer.status == status
    if status == 200:
        assert 'filename="p.png"' in answer.headers["Content-Disposition"]


@pytest.mark.parametrize(
    ("query", "kind", "mode"),
    [
        ("preview=webp", "image/webp", "RGBA"),
        ("preview=webp;50", "image/webp", "RGBA"),
        ("preview=jpeg;90", "image/webp", "RGBA"),
        ("preview=jpeg&channel=rgb", "image/jpeg", "RGB"),
        ("preview=nonsense&channel=rgb", "image/webp", "RGB"),
        ("channel=rgb", "image/png", "RGB"),
        ("channel=a", "image/png", "RGBA"),
        ("channel=rgba", "image/png", "RGBA"),
    ],
)
def test_previews_and_channels(seen: Site, query: str, kind: str, mode: str) -> None:
    if query == "preview=jpeg;90":
        query += "&channel=rgba"  # a channel with alpha forces webp
    answer = seen.get(f"/view?filename=p.png&subfolder=v&{query}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, kind)
    picture = Image.open(io.BytesIO(answer.body))
    assert (picture.mode, picture.size) == (mode, (8, 6))
    if query == "channel=a":
        assert picture.getpixel((0, 0)) == (0, 0, 0, 128)


def test_nothing_that_a_workflow_wrote_runs_in_the_browser(seen: Site) -> None:
    (seen.base / "output" / "s.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (seen.base / "output" / "s.js").write_text("1")
    for name in ("page.html", "s.js"):
        answer = seen.get(f"/view?filename={name}")
        assert answer.headers["Content-Type"] == "application/octet-stream"
    svg = seen.get("/view?filename=s.svg").headers
    assert svg["Content-Type"] == "application/octet-stream" or "sandbox" in svg.get("Content-Security-Policy", "")
    assert svg["X-Content-Type-Options"] == "nosniff"


def test_saved_pictures_hold_their_prompt_and_count_up(site: Site) -> None:
    prompt = {
        "1": node("EmptyImage", width=8, height=8, batch_size=3, color=1),
        "2": node("SaveImage", images=["1", 0], filename_prefix=f"meta/{site.lanes}"),
    }
    tab = site.tab()
    tab.until(tab.post(prompt, extra_data={"extra_pnginfo": {"workflow": {"v": 1}}}))
    names = [image["filename"] for image in tab.data("executed")[0]["output"]["images"]]
    assert names == [f"{site.lanes}_{count:05}_.png" for count in (1, 2, 3)]
    with Image.open(io.BytesIO(site.get(f"/view?filename={names[0]}&subfolder=meta").body)) as picture:
        assert json.loads(picture.info["workflow"]) == {"v": 1}
        assert json.loads(picture.info["prompt"]) == prompt


# settings and user files


def test_settings_merge_and_answer_one_by_one(site: Site) -> None:
    assert site.post("/settings", {"a": 1, "b": {"c": 1}}).status == 200
    assert site.post("/settings", {"b": 2}).status == 200
    for value in (None, [1], "text", {"x": 1}):
        assert site.request("POST", "/settings/one", data=json.dumps(value).encode()).status == 200
        assert site.get("/settings/one").json() == value
    everything = site.get("/settings").json()
    assert (everything["a"], everything["b"]) == (1, 2)
    assert site.get("/settings/unknown").json() is None
    assert site.get("/users").json() == {"storage": "server", "migrated": True}
    assert site.request("POST", "/settings", data=b"[1]").error() == "body_invalid"


def test_user_files(site: Site) -> None:
    path = quote("sub/deep/q é.txt", safe="")
    assert site.request("POST", f"/userdata/{path}", data=b"12345").json() == "sub/deep/q é.txt"
    info = site.request("POST", f"/userdata/{path}?full_info=true", data=b"12345").json()
    assert (info["path"], info["size"]) == ("sub/deep/q é.txt", 5)
    assert set(info) == {"path", "size", "modified", "created"}
    assert site.request("POST", f"/userdata/{path}?overwrite=false", data=b"x").status == 409
    assert site.get(f"/userdata/{path}").body == b"12345"
    assert site.get("/userdata?dir=sub").json() == []
    assert site.get("/userdata?dir=sub&recurse=true").json() == ["deep/q é.txt"]
    assert site.get("/userdata?dir=sub&recurse=true&split=true").json() == [["deep/q é.txt", "deep", "q é.txt"]]
    (full,) = site.get("/userdata?dir=sub&recurse=true&full_info=true").json()
    assert (full["path"], full["size"]) == ("deep/q é.txt", 5)
    tree = site.get("/v2/userdata?path=sub").json()
    assert [(entry["name"], entry["path"], entry["type"]) for entry in tree] == [
        ("deep", "sub/deep", "directory"),
        ("q é.txt", "sub/deep/q é.txt", "file"),
    ]
    moved = quote("sub/moved.txt", safe="")
    assert site.request("POST", f"/userdata/{path}/move/{moved}").json() == "sub/moved.txt"
    assert site.request("POST", f"/userdata/{path}/move/{moved}").status == 404
    site.request("POST", f"/userdata/{path}", data=b"2")
    assert site.request("POST", f"/userdata/{path}/move/{moved}?overwrite=false").status == 409
    assert site.request("DELETE", f"/userdata/{moved}").status == 204
    assert site.request("DELETE", f"/userdata/{moved}").status == 404
    site.request("DELETE", f"/userdata/{path}")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/userdata", 400),
        ("GET", "/userdata?dir=..", 403),
        ("GET", "/userdata?dir=no/such", 404),
        ("GET", "/v2/userdata?path=..", 400),
        ("GET", "/v2/userdata?path=no/such", 404),
        ("GET", "/userdata/gone.txt", 404),
        ("GET", "/userdata/..%2F..%2Fx", 403),
        ("GET", "/userdata/%252e%252e%252fx", 403),
        ("POST", "/userdata/..%2F..%2Fx", 403),
        ("POST", f"/userdata/{'x' * 300}", 400),
        ("POST", "/userdata/a%00b", 400),
        ("DELETE", "/userdata/..%2Fx", 403),
        ("POST", "/userdata/a/b", 405),
        ("POST", "/userdata/..%2Fa/move/b", 403),
    ],
)
def test_refused_user_files(site: Site, method: str, path: str, status: int) -> None:
    assert site.request(method, path, data=b"x" if method == "POST" else None).status == status


# front end, packs, internal


def test_the_front_end_and_its_files(site: Site) -> None:
    page = site.get("/")
    assert (page.status, page.headers["Content-Type"].partition(";")[0]) == (200, "text/html")
    assert site.get("/assets").status == 403
    for path in ("/../main.py", "/%2e%2e/main.py", "/..%2fmain.py"):
        assert site.get(path).status == 404


def test_scripts_and_files_of_packs(site: Site) -> None:
    listed = site.get("/extensions").json()
    assert "/extensions/probes/probes.js" in listed
    answer = site.get("/extensions/probes/probes.js")
    assert (answer.status, answer.headers["Content-Type"].partition(";")[0], answer.body.strip()) == (
        200, "text/javascript", b"export const probes = true;",
    )  # fmt: skip
    assert site.get("/extensions/probes/../__init__.py").status == 404
    assert site.get("/workflow_templates").json()["probes"] == ["probe"]
    assert json.loads(site.get("/api/workflow_templates/probes/probe.json").body) == {"nodes": []}
    assert site.get("/i18n").json()["en"]["a"] == {"b": 1}


@pytest.mark.parametrize("path", ["/templates/index.json"])
def test_templates_are_there_or_empty(site: Site, path: str) -> None:
    answer = site.get(path)
    assert answer.status == 200
    assert isinstance(json.loads(answer.body), list)


def test_internal_routes(site: Site) -> None:
    site.post("/prompt", {"prompt": {}})
    raw: dict[str, Any] = site.get("/internal/logs/raw").json()
    assert set(raw) == {"entries", "size"}
    assert len(raw["entries"]) <= 300
    assert "got prompt" in "".join(entry["m"] for entry in raw["entries"])
    assert "got prompt" in site.get("/internal/logs").json()
    folders = site.get("/internal/folder_paths").json()
    assert str(site.base / "models" / "checkpoints") in folders["checkpoints"]
    for name in ("older.png", "newer.png"):
        (site.base / "input" / name).write_bytes(png())
    import os

    os.utime(site.base / "input" / "older.png", (1, 1))
    listed = site.get("/internal/files/input").json()
    assert listed.index("newer.png") < listed.index("older.png")
    assert site.get("/internal/files/elsewhere").status == 400
    for body in ({}, {"clientId": "x"}, {"clientId": 5, "enabled": True}):
        assert site.request("PATCH", "/internal/logs/subscribe", json=body).error() == "body_invalid"
