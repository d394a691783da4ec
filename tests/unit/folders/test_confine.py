"""Names from clients never leave their folder: files.md section 4, http-api.md section 6."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy.errors import BadRequest, FileNameInvalid, PathOutside
from comfy.folders.confine import collapse, confine
from tests.unit.folders.helpers import folders_in, put


@pytest.fixture
def folders(tmp_path):
    put(tmp_path / "secret.png", b"secret")
    put(tmp_path / "input" / "a.png")
    put(tmp_path / "input" / "s1" / "s2" / "a.png")
    put(tmp_path / "output" / "o.png")
    (tmp_path / "input" / "link").symlink_to(tmp_path)
    (tmp_path / "input" / "link.png").symlink_to(tmp_path / "secret.png")
    return folders_in(tmp_path)


ESCAPES = [
    "../secret.png",
    "s1/../../secret.png",
    "../secret.png [input]",
    "/etc/passwd",
    "/etc/passwd [output]",
    "link/secret.png",
    "link.png",
    "..\\secret.png",
    "s1\\..\\..\\secret.png",
    "\\\\host\\share",
]


@pytest.mark.parametrize("name", ESCAPES)
def test_annotated_names_cannot_reach_other_files(folders, name):
    with pytest.raises(PathOutside):
        folders.annotated_path(name)
    assert not folders.annotated_exists(name)


@pytest.mark.parametrize("name", ["a\0.png", "\ud800.png", 3, None, ["a.png"]])
def test_unusable_names_are_typed_errors(folders, name):
    with pytest.raises(FileNameInvalid):
        folders.annotated_path(name)
    assert not folders.annotated_exists(name)


@pytest.mark.parametrize(
    ("name", "bare", "kind"),
    [
        ("a.png", "a.png", None),
        ("a.png [input]", "a.png", "input"),
        ("a.png [output]", "a.png", "output"),
        ("a.png [temp]", "a.png", "temp"),
        ("a.png[input]", "a.png", "input"),
        ("a.png [user]", "a.png [user]", None),
        ("[temp]", "", "temp"),
    ],
)
def test_annotation_is_cut_off_without_a_character_of_the_name(folders, name, bare, kind):
    assert folders.annotated(name) == (bare, folders.by_type(kind) if kind else None)


def test_annotated_names_find_files_in_subfolders_and_other_folders(folders, tmp_path):
    assert folders.annotated_path("s1/s2/a.png") == str(tmp_path / "input" / "s1" / "s2" / "a.png")
    assert folders.annotated_path("o.png [output]") == str(tmp_path / "output" / "o.png")
    assert folders.annotated_exists("o.png [output]")
    assert not folders.annotated_exists("o.png")
    assert not folders.annotated_exists("s1")


def test_names_that_the_file_system_holds_but_utf8_does_not_are_usable(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    assert confine(str(tmp_path), name) == str(tmp_path / name)


def test_loop_of_links_is_outside_or_missing_but_no_crash(tmp_path):
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "a").symlink_to(tmp_path / "input" / "b")
    (tmp_path / "input" / "b").symlink_to(tmp_path / "input" / "a")
    assert not folders_in(tmp_path).annotated_exists("a/x.png")


@given(st.lists(st.sampled_from(["..", ".", "a", "/", "\\", "", " ", "b.png", "\0", "[input]", "\ud800"]), max_size=8).map("/".join))
def test_whatever_the_name_the_answer_is_inside_or_a_typed_error(name):
    try:
        path = confine("/base/input", name)
    except (PathOutside, FileNameInvalid):
        return
    assert (path + "/").startswith("/base/input/")


@pytest.mark.parametrize(
    ("name", "inside"), [("../../x", "x"), ("/etc/passwd", "etc/passwd"), ("a/../../b/x", "b/x"), ("x", "x"), ("", ".")]
)
def test_model_names_collapse_at_the_root(name, inside):
    assert collapse(name) == inside


def test_other_folder_words_are_refused(folders):
    with pytest.raises(BadRequest):
        folders.by_type_or_raise("user")
