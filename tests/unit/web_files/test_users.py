"""/users, /settings, /userdata, /v2/userdata: http-api.md sections 1.5 and 7, with the marked defects mended."""

import asyncio
import json
import os
import re

import pytest

from comfy.web import settings, userdata, users
from comfy.web.users import Users
from tests.unit.folders.helpers import put
from tests.unit.web_files.helpers import make_server, talk


@pytest.fixture
def server(tmp_path):
    return make_server(tmp_path, users, settings, userdata)


@pytest.fixture
def multi(tmp_path):
    put(tmp_path / "user" / "users.json", json.dumps({"bob_1": "bob", "ann_2": "ann", "..": "evil", "../../x": "worse"}))
    return make_server(tmp_path, users, settings, userdata, multi_user=True)


def ask(server, *calls):
    """Each call is (method, path, body or None, headers or None); answers are (status, JSON or bytes)."""

    async def story(client):
        answers = []
        for method, path, *rest in calls:
            body = rest[0] if rest else None
            headers = rest[1] if len(rest) > 1 else None
            data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
            response = await client.request(method, path, data=data, headers=headers)
            raw = await response.read()
            answers.append((response.status, json.loads(raw) if response.content_type == "application/json" else raw))
        return answers if len(answers) > 1 else answers[0]

    return talk(server, story)


def as_user(name):
    return {"Comfy-User": name}


# -- users -------------------------------------------------------------------------------------------------------------------


def test_single_user_server_tells_whether_the_folder_exists(server, tmp_path):
    assert ask(server, ("GET", "/users")) == (200, {"storage": "server", "migrated": False})
    ask(server, ("POST", "/settings", {"a": 1}))
    assert ask(server, ("GET", "/users")) == (200, {"storage": "server", "migrated": True})


def test_single_user_server_ignores_the_header_and_adds_no_users(server, tmp_path):
    assert ask(server, ("POST", "/settings", {"a": 1}, as_user("../../x")))[0] == 200
    assert (tmp_path / "user" / "default" / "comfy.settings.json").exists()
    status, body = ask(server, ("POST", "/users", {"username": "bob"}))
    assert (status, body["type"]) == (400, "single_user")
    assert not (tmp_path / "user" / "users.json").exists()


def test_users_are_added_with_a_safe_id(multi, tmp_path):
    status, user = ask(multi, ("POST", "/users", {"username": "  Zoë / Ann .. "}))
    assert status == 200
    assert re.fullmatch(r"Zo-Ann-_[0-9a-f]{8}-[0-9a-f-]{27}", user) or re.fullmatch(r"Zo-Ann-_.{36}", user)
    listed = ask(multi, ("GET", "/users"))[1]
    assert listed["users"][user] == "Zoë / Ann .."
    assert listed["users"]["bob_1"] == "bob"


@pytest.mark.parametrize(
    "body", [{"username": "bob"}, {"username": " bob "}, {"username": "  "}, {}, [], b"null", {"username": 3}, {"username": "é" * 150}]
)
def test_unusable_names_are_refused_in_words_that_the_front_end_shows(multi, body):
    status, answer = ask(multi, ("POST", "/users", body))
    assert (status, type(answer["error"]), answer["type"]) == (400, str, "user_name_unusable")


def test_broken_users_file_is_not_overwritten(multi, tmp_path):
    put(tmp_path / "user" / "users.json", "{broken")
    assert ask(multi, ("POST", "/users", {"username": "new"}))[0] == 507
    assert (tmp_path / "user" / "users.json").read_text() == "{broken"
    assert ask(multi, ("GET", "/users")) == (200, {"storage": "server", "users": {}})


def test_users_added_at_once_are_all_kept(multi):
    async def story(client):
        answers = await asyncio.gather(*(client.post("/users", json={"username": f"u{index}"}) for index in range(10)))
        assert {answer.status for answer in answers} == {200}
        return await (await client.get("/users")).json()

    assert {f"u{index}" for index in range(10)} <= set(talk(multi, story)["users"].values())


def test_default_user_is_known_without_a_users_file(tmp_path):
    server = make_server(tmp_path, users, settings, userdata, multi_user=True)
    assert ask(server, ("GET", "/settings"), ("GET", "/v2/userdata"), ("GET", "/users")) == [
        (200, {}),
        (200, []),
        (200, {"storage": "server", "users": {}}),
    ]


@pytest.mark.parametrize("name", ["nobody", "..", "../../x", "", "."])
def test_unknown_users_get_typed_answers_everywhere(multi, tmp_path, name):
    calls = [("GET", "/settings", 401), ("POST", "/settings", 401), ("GET", "/settings/a", 401), ("POST", "/settings/a", 401)]
    calls += [("GET", "/userdata?dir=a", 403), ("GET", "/v2/userdata", 403), ("GET", "/userdata/a", 403), ("POST", "/userdata/a", 403)]
    calls += [("DELETE", "/userdata/a", 403), ("POST", "/userdata/a/move/b", 403)]
    answers = ask(multi, *((method, path, {"k": 1} if method == "POST" else None, as_user(name)) for method, path, _ in calls))
    assert [status for status, _ in answers] == [status for _, _, status in calls]
    assert {body["error"]["type"] for _, body in answers} == {"user_unknown", "user_forbidden"}
    assert sorted(os.listdir(tmp_path / "user")) == ["users.json"]


def test_users_do_not_see_each_other(multi):
    answers = ask(
        multi,
        ("POST", "/settings/a", 1, as_user("bob_1")),
        ("POST", "/userdata/f", b"bob", as_user("bob_1")),
        ("GET", "/settings/a", None, as_user("ann_2")),
        ("GET", "/userdata/f", None, as_user("ann_2")),
        ("GET", "/userdata/..%2Fbob_1%2Ff", None, as_user("ann_2")),
        ("GET", "/userdata/f", None, as_user("bob_1")),
    )
    assert [status for status, _ in answers] == [200, 200, 200, 404, 403, 200]
    assert answers[2][1] is None


def test_names_that_packs_call(multi, tmp_path):
    manager = Users(multi.config, multi.folders)

    class Request:
        headers = {"comfy-user": "bob_1"}

    assert manager.get_request_user_id(Request) == "bob_1"
    assert manager.get_request_user_filepath(Request, "a/b.json") == str(tmp_path / "user" / "bob_1" / "a" / "b.json")
    assert (tmp_path / "user" / "bob_1" / "a").is_dir()
    assert manager.get_request_user_filepath(Request, "../ann_2/x") is None
    assert manager.get_request_user_filepath(Request, None) == str(tmp_path / "user" / "bob_1")


# -- settings ----------------------------------------------------------------------------------------------------------------


def test_settings_merge_on_the_top_level(server, tmp_path):
    answers = ask(
        server,
        ("GET", "/settings"),
        ("GET", "/settings/Comfy.a"),
        ("POST", "/settings", {"Comfy.a": {"x": 1}, "b": 2}),
        ("POST", "/settings", {"Comfy.a": {"y": 1}}),
        ("POST", "/settings/c", [None]),
        ("POST", "/settings/a%2Fb", b"false"),
        ("GET", "/settings"),
        ("GET", "/settings/Comfy.a"),
    )
    assert answers[:2] == [(200, {}), (200, None)]
    assert answers[2] == (200, b"")
    assert answers[6:] == [(200, {"Comfy.a": {"y": 1}, "b": 2, "c": [None], "a/b": False}), (200, {"y": 1})]
    text = (tmp_path / "user" / "default" / "comfy.settings.json").read_text()
    assert text.startswith('{\n    "Comfy.a": {\n        "y": 1')


def test_settings_posted_at_once_are_all_kept(server):
    async def story(client):
        await asyncio.gather(*(client.post(f"/settings/k{index}", json=index) for index in range(20)))
        return await (await client.get("/settings")).json()

    assert talk(server, story) == {f"k{index}": index for index in range(20)}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 100_000])
def test_unusable_settings_are_typed_400(server, body):
    assert ask(server, ("POST", "/settings", body))[0] == 400


def test_numbers_that_json_lacks_do_not_spoil_the_file(server, tmp_path):
    assert ask(server, ("POST", "/settings/a", b"NaN"))[0] == 200
    assert json.loads((tmp_path / "user" / "default" / "comfy.settings.json").read_text(), parse_constant=pytest.fail) == {"a": None}


@pytest.mark.parametrize("content", ["{", "[1]", "", b"\xff\xfe", "[" * 100_000])
def test_broken_settings_read_as_none_and_are_kept_aside(server, tmp_path, content):
    file = put(tmp_path / "user" / "default" / "comfy.settings.json", content)
    before = file.read_bytes()
    assert ask(server, ("GET", "/settings"), ("POST", "/settings/a", 1), ("GET", "/settings")) == [(200, {}), (200, b""), (200, {"a": 1})]
    assert file.with_name("comfy.settings.json.broken").read_bytes() == before


# -- userdata ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    root = tmp_path / "user" / "default"
    put(root / "sub" / "deep" / "q.txt", "hello")
    put(root / "sub" / "A.json", "{}")
    put(root / "sub" / ".hidden", "h")
    put(root / "sub" / ".dir" / "x", "h")
    put(root / "b.txt", "b")
    put(tmp_path / "user" / "secret.txt", "secret")
    (root / "sub" / "link.txt").symlink_to(tmp_path / "user" / "secret.txt")
    (root / "sub" / "out").symlink_to(tmp_path / "user")
    return root


def test_listing(server, files):
    answers = ask(
        server,
        ("GET", "/userdata?dir=sub"),
        ("GET", "/userdata?dir=sub&recurse=TRUE"),
        ("GET", "/userdata?dir=sub&recurse=true&split=true"),
        ("GET", "/userdata?dir=sub&recurse=true&split=true&full_info=true"),
        ("GET", "/userdata?dir=sub%2Fdeep"),
    )
    assert [body for _, body in answers[:3]] == [
        ["A.json"],
        ["A.json", "deep/q.txt"],
        [["A.json", "A.json"], ["deep/q.txt", "deep", "q.txt"]],
    ]
    status = os.stat(files / "sub" / "deep" / "q.txt")
    assert answers[3][1][1] == {"path": "deep/q.txt", "size": 5, "modified": status.st_mtime, "created": status.st_ctime}
    assert answers[4] == (200, ["q.txt"])


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/userdata", 400),
        ("/userdata?dir=", 400),
        ("/userdata?dir=..", 403),
        ("/userdata?dir=/etc", 403),
        ("/userdata?dir=sub/out", 403),
        ("/userdata?dir=flows", 404),
        ("/userdata?dir=b.txt", 404),
        ("/userdata?dir=a%00", 400),
        ("/v2/userdata?path=..", 400),
        ("/v2/userdata?path=/etc", 400),
        ("/v2/userdata?path=b.txt", 400),
        ("/v2/userdata?path=no", 404),
        ("/v2/userdata?path=a%00", 400),
        ("/userdata/no.txt", 404),
        ("/userdata/sub", 403),
        ("/userdata/..%2Fsecret.txt", 403),
        ("/userdata/..%252Fsecret.txt", 403),
        ("/userdata/%2Fetc%2Fpasswd", 403),
        ("/userdata/sub%2Flink.txt", 403),
        ("/userdata/sub%2Fout%2Fsecret.txt", 403),
        ("/userdata/..%5Csecret.txt", 403),
        ("/userdata/a%00b", 400),
    ],
)
def test_refusals_of_reading_are_typed_and_create_nothing(server, tmp_path, files, path, status):
    before = sorted(str(found) for found in tmp_path.rglob("*"))
    got, body = ask(server, ("GET", path))
    assert (got, set(body)) == (status, {"error", "node_errors"})
    assert str(tmp_path) not in json.dumps(body)
    assert sorted(str(found) for found in tmp_path.rglob("*")) == before


def test_fresh_user_has_nothing_and_asking_creates_nothing(server, tmp_path):
    assert ask(server, ("GET", "/v2/userdata"), ("GET", "/userdata?dir=workflows"))[0] == (200, [])
    assert not (tmp_path / "user" / "default").exists()


def test_a_new_user_has_what_the_front_end_asks_for_first(server, tmp_path):
    for path in ("/userdata?dir=workflows&recurse=true&full_info=true", "/userdata?dir=subgraphs%2F", "/userdata/comfy.templates.json"):
        assert ask(server, ("GET", path)) == (200, [])
    put(tmp_path / "user" / "default" / "workflows", "a file")
    put(tmp_path / "user" / "default" / "comfy.templates.json", "[1]")
    assert ask(server, ("GET", "/userdata?dir=workflows"))[0] == 404
    assert ask(server, ("GET", "/userdata/comfy.templates.json"))[1] in ([1], b"[1]")


def test_tree(server, files):
    status, found = ask(server, ("GET", "/v2/userdata?path=sub"))
    assert status == 200
    assert [(item["type"], item["path"]) for item in found] == [
        ("directory", "sub/.dir"),
        ("directory", "sub/deep"),
        ("file", "sub/.hidden"),
        ("file", "sub/A.json"),
        ("file", "sub/deep/q.txt"),
        ("file", "sub/.dir/x"),
    ]
    assert set(found[0]) == {"name", "path", "type"}
    assert {key: value for key, value in found[4].items() if key != "modified"} == {
        "name": "q.txt",
        "path": "sub/deep/q.txt",
        "type": "file",
        "size": 5,
    }


def test_files_are_stored_read_moved_and_deleted(server, tmp_path):
    answers = ask(
        server,
        ("POST", "/userdata/workflows%2Ft.json", b"{}"),
        ("POST", "/userdata/workflows%2Ft.json?full_info=true", b"{} "),
        ("POST", "/userdata/workflows%2Ft.json?overwrite=false", b"no"),
        ("GET", "/userdata/workflows%2Ft.json"),
        ("POST", "/userdata/workflows%2Ft.json/move/w2%2Fu.json", b""),
        ("GET", "/userdata/workflows%2Ft.json"),
        ("POST", "/userdata/x", b"x"),
        ("POST", "/userdata/x/move/w2%2Fu.json?overwrite=false", b""),
        ("POST", "/userdata/x/move/w2%2Fu.json?full_info=true", b""),
        ("DELETE", "/userdata/w2%2Fu.json"),
        ("DELETE", "/userdata/w2%2Fu.json"),
        ("POST", "/userdata/a/b", b""),
    )
    assert [status for status, _ in answers] == [200, 200, 409, 200, 200, 404, 200, 409, 200, 204, 404, 404]
    assert answers[0][1] == "workflows/t.json"
    assert set(answers[1][1]) == {"path", "size", "modified", "created"}
    assert answers[3][1] == {}
    assert answers[4][1] == "w2/u.json"
    assert answers[8][1]["path"] == "w2/u.json"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/userdata/..%2Fx", 403),
        ("POST", "/userdata/..%252Fx", 403),
        ("POST", "/userdata/a%00b", 400),
        ("POST", "/userdata/" + "n" * 300, 400),
        ("POST", "/userdata/sub", 400),
        ("POST", "/userdata/b.txt%2Fx", 400),
        ("POST", "/userdata/sub%2Flink.txt", 403),
        ("DELETE", "/userdata/sub", 403),
        ("DELETE", "/userdata/..%2Fsecret.txt", 403),
        ("POST", "/userdata/b.txt/move/..%2Fx", 403),
        ("POST", "/userdata/b.txt/move/sub", 400),
        ("POST", "/userdata/b.txt/move/" + "n" * 300, 400),
        ("POST", "/userdata/..%2Fsecret.txt/move/x", 403),
        ("POST", "/userdata/no/move/x", 404),
    ],
)
def test_refusals_of_writing_are_typed_and_change_nothing(server, tmp_path, files, method, path, status):
    before = {str(found): found.is_file() and found.read_bytes() for found in tmp_path.rglob("*")}
    got, body = ask(server, (method, path, b"data"))
    assert (got, set(body)) == (status, {"error", "node_errors"})
    assert {str(found): found.is_file() and found.read_bytes() for found in tmp_path.rglob("*")} == before


def test_of_two_writers_that_refuse_to_overwrite_one_wins(server, tmp_path):
    async def story(client):
        answers = await asyncio.gather(*(client.post("/userdata/f?overwrite=false", data=b"%d" % index) for index in range(8)))
        return sorted(answer.status for answer in answers)

    assert talk(server, story) == [200] + [409] * 7


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.html", "application/octet-stream"), ("a.svg", "image/svg+xml"), ("a.js", "application/octet-stream"), ("user.css", "text/css")],
)
def test_user_files_run_no_script(server, tmp_path, name, kind):
    put(tmp_path / "user" / "default" / name, "<script>")

    async def story(client):
        response = await client.get(f"/userdata/{name}")
        return response.status, response.headers

    status, headers = talk(server, story)
    assert (status, headers["Content-Type"]) == (200, kind)
    assert headers["Content-Security-Policy"].startswith("sandbox")
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_body_over_the_limit_is_413_and_writes_nothing(tmp_path):
    server = make_server(tmp_path, userdata, max_upload_bytes=1000)
    assert ask(server, ("POST", "/userdata/f", b"x" * 1001))[0] == 413
    assert not (tmp_path / "user" / "default" / "f").exists()
