"""Result names: files.md section 1 and parallel-hazards.md section 5, with the marked defects mended."""

import os
import threading
import time

import pytest

from comfy import control
from comfy.errors import FileNameInvalid, FileUnwritable, PathOutside
from comfy.folders import saving
from tests.unit.folders.helpers import folders_in, put


def write_all(folders, prefix, payloads, extension=".png"):
    return folders.save_target(prefix).write([lambda data=data: data for data in payloads], extension)


def in_threads(count, work):
    failures = []

    def run(index):
        try:
            work(index)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize(
    ("there", "name", "following"),
    [
        ((), "ComfyUI", 1),
        (("cnt_00041_.png", "cnt_00007_.png", "cnt_130_foo.bin", "cnt_abc_.png", "cnt_120.txt", "cntx_200_.png"), "cnt", 131),
        (("cnt_99999_.png",), "cnt", 100000),
        (("ComfyUI_00009_00001_.png",), "ComfyUI", 10),
        (("x_١٢_.png", "x_+7_.png"), "x", 1),
        (("a_0_x_00003_.png", "a_9_x_00001_.png", "a_q_x_00008_.png"), "a_%batch_num%_x", 4),
    ],
)
def test_counter_follows_the_folder(tmp_path, there, name, following):
    for entry in there:
        put(tmp_path / "output" / entry)
    assert folders_in(tmp_path).save_path(name, str(tmp_path / "output"))[2] == following


def test_save_path_gives_the_five_parts_and_creates_the_folder(tmp_path):
    folders = folders_in(tmp_path)
    answer = folders.save_path("t%width%/x%height%", folders.output_dir, 64, 32)
    assert answer == (str(tmp_path / "output" / "t64"), "x32", 1, "t64", "t64/x32")
    assert (tmp_path / "output" / "t64").is_dir()


def test_time_variables_are_expanded_with_fixed_width():
    now = time.struct_time((2026, 1, 2, 3, 4, 5, 0, 0, 0))
    assert saving.expand("%year%-%month%-%day%/%hour%%minute%%second%_%date:x%", 0, 0, now) == "2026-01-02/030405_%date:x%"


@pytest.mark.parametrize(
    "prefix", ["../x", "a/../../x", "/elsewhere/x", "..", "link/x", "link/deep/x", "..\\x", "a/..\\..\\x", "dangling/x"]
)
def test_prefix_cannot_leave_the_output_folder(tmp_path, prefix):
    (tmp_path / "outside").mkdir()
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "output" / "dangling").symlink_to(tmp_path / "nowhere")
    folders = folders_in(tmp_path)
    with pytest.raises(PathOutside):
        folders.save_path(prefix, folders.output_dir)
    assert list((tmp_path / "outside").iterdir()) == []
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("prefix", ["a\0b", "a\ud800", None, 7])
def test_prefix_that_no_file_system_holds_is_refused(tmp_path, prefix):
    folders = folders_in(tmp_path)
    with pytest.raises(FileNameInvalid):
        folders.save_path(prefix, folders.output_dir)


def test_name_that_is_too_long_is_refused_and_leaves_nothing(tmp_path):
    folders = folders_in(tmp_path)
    with pytest.raises(FileNameInvalid):
        write_all(folders, "n" * 300, [b"1"])
    with pytest.raises(FileNameInvalid):
        write_all(folders, "n" * 300 + "/x", [b"1"])
    assert os.listdir(folders.output_dir) == []


def test_file_in_the_way_of_a_folder_is_told(tmp_path):
    put(tmp_path / "output" / "taken")
    with pytest.raises(FileNameInvalid):
        folders_in(tmp_path).save_target("taken/deep/x")


def test_absolute_prefix_inside_the_output_folder_gives_a_relative_subfolder(tmp_path):
    folders = folders_in(tmp_path)
    assert folders.save_target(str(tmp_path / "output" / "s" / "x")).subfolder == "s"


def test_output_folder_may_itself_be_a_link(tmp_path):
    (tmp_path / "big_disk").mkdir()
    (tmp_path / "output").symlink_to(tmp_path / "big_disk")
    assert write_all(folders_in(tmp_path), "x", [b"1"]) == ["x_00001_.png"]
    assert (tmp_path / "big_disk" / "x_00001_.png").read_bytes() == b"1"


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("", ["ComfyUI_00001_.png", "ComfyUI_00002_.png", "ComfyUI_00003_.png"]),
        (".", ["ComfyUI_00001_.png", "ComfyUI_00002_.png", "ComfyUI_00003_.png"]),
        ("sub/", ["sub_00001_.png", "sub_00002_.png", "sub_00003_.png"]),
        ("b%batch_num%", ["b0_00001_.png", "b1_00002_.png", "b0_00003_.png"]),
        ("x.png", ["x.png_00001_.png", "x.png_00002_.png", "x.png_00003_.png"]),
        ("a:*?", ["a:*?_00001_.png", "a:*?_00002_.png", "a:*?_00003_.png"]),
    ],
)
def test_no_prefix_overwrites_earlier_files(tmp_path, prefix, expected):
    folders = folders_in(tmp_path)
    assert write_all(folders, prefix, [b"1", b"2"]) + write_all(folders, prefix, [b"3"]) == expected
    assert sorted(path.read_bytes() for path in (tmp_path / "output").iterdir()) == [b"1", b"2", b"3"]


def test_four_lanes_saving_under_one_prefix_make_200_files_without_a_gap(tmp_path):
    folders = folders_in(tmp_path)
    in_threads(4, lambda lane: [write_all(folders, "x", [b"%d-%d" % (lane, index)]) for index in range(50)])
    names = sorted(os.listdir(folders.output_dir))
    assert names == [f"x_{number:05}_.png" for number in range(1, 201)]
    assert len({(tmp_path / "output" / name).read_bytes() for name in names}) == 200
    assert folders.save_names.statistics() == (0, 0)


def test_batches_of_lanes_stay_consecutive(tmp_path):
    folders = folders_in(tmp_path)
    batches = []
    in_threads(4, lambda lane: [batches.append(write_all(folders, "x", [b"a"] * 3)) for _ in range(10)])
    numbers = [[int(name[2:7]) for name in batch] for batch in batches]
    assert all(batch == [batch[0], batch[0] + 1, batch[0] + 2] for batch in numbers)
    assert len(os.listdir(folders.output_dir)) == 120


def test_packs_in_four_threads_make_200_files(tmp_path):
    folders = folders_in(tmp_path)

    def pack(lane):
        for _ in range(50):
            folder, name, counter, _, _ = folders.save_path("p", folders.output_dir)
            with open(os.path.join(folder, f"{name}_{counter:05}_.png"), "xb") as file:  # x: an overwrite would raise
                file.write(b"%d" % lane)

    in_threads(4, pack)
    assert len(os.listdir(folders.output_dir)) == 200


def test_pack_batches_on_two_lanes_do_not_overlap(tmp_path):
    folders = folders_in(tmp_path)
    one, two = control.JobControl("a", node_id="3"), control.JobControl("b", node_id="3")
    with control.entered(one):
        first = folders.save_path("p", folders.output_dir)[2]
    with control.entered(two):
        second = folders.save_path("p", folders.output_dir)[2]
    assert first == 1
    assert second == 1 + saving.PACK_BLOCK
    with control.entered(one):
        assert folders.save_path("p", folders.output_dir)[2] > second  # while the other lane counts on, keep away from it


def test_pack_on_one_lane_counts_as_the_reference_does(tmp_path):
    folders = folders_in(tmp_path)
    job = control.JobControl("a", node_id="3")
    with control.entered(job):
        assert folders.save_path("p", folders.output_dir)[2] == 1
        put(tmp_path / "output" / "p_00001_.png")
        put(tmp_path / "output" / "p_00002_.png")
        job.node_id = "4"
        assert folders.save_path("p", folders.output_dir)[2] == 3
    job.node_id = None
    assert write_all(folders, "p", [b"1"]) == ["p_00003_.png"]
    assert folders.save_names.statistics() == (0, 0)


def test_numbers_start_again_when_the_files_are_gone(tmp_path):
    folders = folders_in(tmp_path)
    (name,) = write_all(folders, "x", [b"1"])
    os.unlink(os.path.join(folders.output_dir, name))
    assert write_all(folders, "x", [b"1"]) == ["x_00001_.png"]


def test_another_process_taking_a_number_moves_the_rest_on(tmp_path):
    folders = folders_in(tmp_path)
    other = tmp_path / "output" / "x_00002_.png"

    def second():
        if not other.exists():
            put(other, b"theirs")
        return b"mine 2"

    names = folders.save_target("x").write([lambda: b"mine 1", second, lambda: b"mine 3"], ".png")
    assert names == ["x_00001_.png", "x_00003_.png", "x_00004_.png"]
    assert other.read_bytes() == b"theirs"


def test_full_disk_is_a_typed_error_and_leaves_no_part(tmp_path, monkeypatch):
    folders = folders_in(tmp_path)
    place = folders.save_target("x")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(FileUnwritable) as caught:
        place.write([lambda: b"1"], ".png")
    assert caught.value.facts == {"filename": "x_00001_.png"}
    assert os.listdir(folders.output_dir) == []
    assert folders.save_names.statistics() == (0, 0)


def test_file_systems_without_hard_links_still_never_overwrite(tmp_path, monkeypatch):
    folders = folders_in(tmp_path)

    def refused(*args):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    in_threads(4, lambda lane: [write_all(folders, "x", [b"1"]) for _ in range(10)])
    assert len(os.listdir(folders.output_dir)) == 40
