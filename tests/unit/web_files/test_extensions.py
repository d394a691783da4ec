"""Scripts, templates, translations and docs of packs and packages: http-api.md section 8."""

import json

import pytest

from comfy.web import extensions
from tests.unit.folders.helpers import put
from tests.unit.web_files.helpers import make_server, talk
from tests.unit.web_files.test_users import ask


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(extensions, "TEMPLATES", ("a_package_that_is_not_there", "templates"))
    monkeypatch.setattr(extensions, "DOCS", ("a_package_that_is_not_there", "docs"))
    put(tmp_path / "root" / "extensions" / "core" / "q.js", "core")
    put(tmp_path / "root" / "extensions" / "core" / "q.css", "core")
    put(tmp_path / "pack" / "web" / "main.js", "main")
    put(tmp_path / "pack" / "web" / "sub" / "x.js", "sub")
    put(tmp_path / "pack" / "web" / "page.html", "<p>")
    put(tmp_path / "pack" / "secret.js", "secret")
    (tmp_path / "pack" / "web" / "link.js").symlink_to(tmp_path / "pack" / "secret.js")
    server = make_server(tmp_path, extensions)
    server.web_root = str(tmp_path / "root")
    server.folders.web_dirs["my pack/é"] = str(tmp_path / "pack" / "web")
    return server


PACK = "/extensions/my%20pack%2F%C3%A9"


def test_scripts_of_the_front_end_and_of_packs_are_listed(server):
    ours = "/extensions/server/absent_loaders.js"
    listed = ["/extensions/core/q.js", ours, f"{PACK}/link.js", f"{PACK}/main.js", f"{PACK}/sub/x.js"]
    assert ask(server, ("GET", "/extensions")) == (200, listed)
    assert b"registerExtension" in ask(server, ("GET", ours))[1]
    server.web_root = None
    server.folders.web_dirs["gone"] = "/no/such/folder"
    assert len(ask(server, ("GET", "/extensions"))[1]) == 4


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        (f"{PACK}/main.js", 200, b"main"),
        (f"{PACK}/sub/x.js", 200, b"sub"),
        (f"{PACK}/page.html", 200, b"<p>"),
        ("/extensions/core/q.js", 200, b"core"),
        (f"{PACK}/no.js", 404, b""),
        (f"{PACK}/..%2Fsecret.js", 404, b""),
        (f"{PACK}/link.js", 404, b""),
        (f"{PACK}/sub", 403, b"403: Forbidden"),
        ("/extensions/nopack/x.js", 404, b""),
        ("/extensions/core/..%2F..%2F..%2Fpack%2Fsecret.js", 404, b""),
    ],
)
def test_files_of_packs(server, path, status, body):
    assert ask(server, ("GET", path)) == (status, body)


def test_scripts_keep_a_type_that_browsers_run(server):
    async def story(client):
        response = await client.get(f"{PACK}/main.js")
        return response.headers["Content-Type"], response.headers["Cache-Control"]

    kind, cache = talk(server, story)
    assert kind.startswith("text/javascript")
    assert cache == "no-cache"


@pytest.mark.parametrize(
    ("toml", "found"),
    [
        ('[project]\nname = "p"\n[tool.comfy]\nweb = "js"\n', ("p", "js")),
        ('[project]\nname = "p"\n[tool.comfy]\nweb = "no"\n', None),
        ('[project]\nname = "p"\n[tool.comfy]\nweb = "../other"\n', None),
        ('[project]\nname = "p"\n[tool.comfy]\nweb = 3\n', None),
        ('[tool.comfy]\nweb = "js"\n', None),
        ('[project]\nname = "p"\n', None),
        ("tool = 3\n", None),
        ("[broken", None),
        (b"\xff\xff", None),
    ],
)
def test_web_folder_that_a_pyproject_names(tmp_path, toml, found):
    put(tmp_path / "pack" / "js" / "a.js")
    put(tmp_path / "other" / "a.js")
    put(tmp_path / "pack" / "pyproject.toml", toml)
    assert extensions.toml_web_dir(str(tmp_path / "pack")) == (None if found is None else (found[0], str(tmp_path / "pack" / found[1])))
    assert extensions.toml_web_dir(str(tmp_path / "other")) is None


def test_example_workflows_of_every_folder_are_listed_and_served(server, tmp_path):
    nodes = tmp_path / "custom_nodes"
    put(nodes / "b" / "example_workflows" / "one.json", '{"a": 1}')
    put(nodes / "b" / "example_workflows" / "one.jpg", b"picture")
    put(nodes / "b" / "workflows" / "two.json", "{}")  # the reference serves only the first folder
    put(nodes / "a" / "example" / "x.json", "{}")
    put(nodes / "none" / "readme.md")
    put(nodes / "off.disabled" / "examples" / "x.json", "{}")
    put(nodes / "file.py")
    answers = ask(
        server,
        ("GET", "/workflow_templates"),
        ("GET", "/api/workflow_templates/b/one.json"),
        ("GET", "/api/workflow_templates/b/two.json"),
        ("GET", "/api/workflow_templates/b/one.jpg"),
        ("GET", "/api/workflow_templates/b/..%2F..%2Fa%2Fexample%2Fx.json"),
        ("GET", "/api/workflow_templates/no/x.json"),
    )
    assert answers[0] == (200, {"a": ["x"], "b": ["one", "two"]})
    assert answers[1:4] == [(200, {"a": 1}), (200, {}), (200, b"picture")]
    assert [status for status, _ in answers[4:]] == [404, 404]


def test_translations_are_merged_in_the_order_of_pack_names(server, tmp_path):
    nodes = tmp_path / "custom_nodes"
    put(nodes / "a" / "locales" / "en" / "main.json", json.dumps({"a": {"b": 1, "c": 1}, "l": [1], "s": 1}))
    put(nodes / "a" / "locales" / "en" / "nodeDefs.json", json.dumps({"N": {"display_name": "n"}}))
    put(nodes / "b" / "locales" / "en" / "main.json", json.dumps({"a": {"b": 2}, "l": [2], "s": [1]}))
    put(nodes / "b" / "locales" / "fr" / "settings.json", json.dumps({"S": 1}))
    put(nodes / "c" / "locales" / "en" / "main.json", "{broken")
    put(nodes / "c" / "locales" / "de" / "main.json", "[1]")
    put(nodes / "c" / "locales" / "it", "a file")
    assert ask(server, ("GET", "/i18n")) == (
        200,
        {"en": {"a": {"b": 2, "c": 1}, "l": [1, 2], "s": [1], "nodeDefs": {"N": {"display_name": "n"}}}, "fr": {"settings": {"S": 1}}},
    )


def test_without_packs_everything_is_empty(server):
    assert ask(server, ("GET", "/i18n"), ("GET", "/workflow_templates")) == [(200, {}), (200, {})]


def test_without_the_packages_there_are_no_templates_and_docs(server):
    assert ask(server, ("GET", "/templates/index.json"), ("GET", "/templates/x.json"), ("GET", "/docs/KSampler/en.md")) == [
        (200, []),
        (404, b""),
        (404, b""),
    ]


def test_installed_packages_are_served(server, tmp_path, monkeypatch):
    put(tmp_path / "site" / "some_templates" / "__init__.py", "raise ImportError('is not to be imported')")
    put(tmp_path / "site" / "some_templates" / "templates" / "index.json", '[{"moduleName": "default"}]')
    put(tmp_path / "site" / "some_templates" / "docs" / "KSampler" / "en.md", "# K")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(extensions, "TEMPLATES", ("some_templates", "templates"))
    monkeypatch.setattr(extensions, "DOCS", ("some_templates", "docs"))
    assert ask(server, ("GET", "/templates/index.json"), ("GET", "/docs/KSampler/en.md"), ("GET", "/docs/..%2F__init__.py")) == [
        (200, [{"moduleName": "default"}]),
        (200, b"# K"),
        (404, b""),
    ]
