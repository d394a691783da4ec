"""The temp folder is emptied by its only user and by nobody else (cli.md section 4)."""

from comfy.folders.temp import TempFolder
from tests.unit.folders.helpers import folders_in, put


def test_start_empties_temp_and_end_removes_it(tmp_path):
    put(tmp_path / "temp" / "old" / "x.png")
    put(tmp_path / "kept" / "y.png")
    (tmp_path / "temp" / "link").symlink_to(tmp_path / "kept")
    folders = folders_in(tmp_path)
    folders.prepare()
    assert [path.name for path in (tmp_path / "temp").iterdir()] == [".lock"]
    put(tmp_path / "temp" / "new.png")
    folders.prepare()
    assert (tmp_path / "temp" / "new.png").exists()
    folders.close()
    assert not (tmp_path / "temp").exists()
    assert (tmp_path / "kept" / "y.png").exists()


def test_second_server_leaves_the_files_of_the_first(tmp_path):
    first, second = TempFolder(str(tmp_path / "temp")), TempFolder(str(tmp_path / "temp"))
    assert first.claim()
    put(tmp_path / "temp" / "x.png")
    assert not second.claim()
    assert not second.release()
    assert (tmp_path / "temp" / "x.png").exists()
    assert first.release()


def test_first_server_leaves_the_files_of_the_second(tmp_path):
    first, second = TempFolder(str(tmp_path / "temp")), TempFolder(str(tmp_path / "temp"))
    first.claim()
    second.claim()
    put(tmp_path / "temp" / "x.png")
    assert not first.release()
    assert (tmp_path / "temp" / "x.png").exists()
    third = TempFolder(str(tmp_path / "temp"))
    assert not third.claim()
    third.release()
    assert second.release()
    assert not (tmp_path / "temp").exists()


def test_dead_servers_hold_nothing(tmp_path):
    put(tmp_path / "temp" / ".lock")
    put(tmp_path / "temp" / "x.png")
    next_server = TempFolder(str(tmp_path / "temp"))
    assert next_server.claim()
    assert not (tmp_path / "temp" / "x.png").exists()
    next_server.release()


def test_temp_that_holds_results_is_never_emptied(tmp_path):
    put(tmp_path / "out" / "temp" / "results" / "x.png")
    folders = folders_in(tmp_path, temp_dir=tmp_path / "out" / "temp", output_dir=tmp_path / "out" / "temp" / "results")
    folders.prepare()
    folders.close()
    assert (tmp_path / "out" / "temp" / "results" / "x.png").exists()


def test_prepare_creates_what_a_fresh_base_lacks(tmp_path):
    folders = folders_in(tmp_path / "fresh")
    folders.prepare()
    assert sorted(path.name for path in (tmp_path / "fresh").iterdir()) == ["custom_nodes", "input", "temp", "user"]
    folders.close()
