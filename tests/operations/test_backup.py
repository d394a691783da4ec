"""backup.sh and rollback.sh: in small trees, and with the whole program, which is broken and comes back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from comfy import version_stamp
from tests.conformance.site import free_port
from tools import backup

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"main.py": "print(1)\n", "start_multi_gpu.sh": "#!/bin/sh\n", "comfy/a.py": "A = 1\n", "comfy_execution/b.py": "B = 1\n"}
ENV = {name: value for name, value in os.environ.items() if not name.startswith(("COMFY_", "GIT_", "PYTHON"))}


def run(tree: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(tree / script), *arguments], capture_output=True, text=True, cwd="/", env=ENV, check=False)


def stamp_of(made: subprocess.CompletedProcess[str]) -> str:
    assert made.returncode == 0, made.stderr
    return made.stdout.splitlines()[0].removeprefix("backups/")


def contents(tree: Path) -> dict[str, bytes]:
    """Every file of the program, those of users and the sets left out."""
    return {str(path.relative_to(tree)): path.read_bytes() for path in [*backup.root_files(tree), *backup.folder_files(tree)]}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A program of four files, with the scripts, a user's files and a compiled file."""
    tree = tmp_path / "a tree"
    for name, text in {**SMALL, "user/settings.json": "{}", "workflow.json": "{}", "comfy/__pycache__/a.pyc": "x"}.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    (tree / "start_multi_gpu.sh").chmod(0o755)
    (tree / "tools").mkdir()
    for name in ("backup.sh", "rollback.sh", "tools/backup.py"):
        shutil.copy(ROOT / name, tree / name)
    return tree


def test_a_set_holds_the_root_files_the_packages_and_their_checksums(tree: Path) -> None:
    stamp = stamp_of(run(tree, "backup.sh"))
    folder = tree / "backups" / stamp
    manifest = json.loads((folder / "manifest.json").read_text())
    assert sorted(path.name for path in folder.iterdir()) == [
        "backup.sh", "backup_stamp.py", "main.py", "manifest.json", "packages.tar.gz", "rollback.sh", "start_multi_gpu.sh",
    ]  # fmt: skip
    assert set(manifest["folders"]) == {"comfy/a.py", "comfy_execution/b.py", "tools/backup.py"}
    assert manifest["root"]["main.py"] == backup.sha256(SMALL["main.py"].encode())
    assert (manifest["stamp"], manifest["commit"]) == (stamp, None)


def test_the_set_names_the_commit_and_whether_the_tree_differed(tree: Path) -> None:
    me = ["-c", "user.name=a", "-c", "user.email=a@example.invalid"]
    for words in (["init", "-q"], ["add", "main.py"], [*me, "commit", "-q", "-m", "One"]):
        subprocess.run(["git", *words], cwd=tree, check=True, env=ENV)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tree, check=True, capture_output=True, text=True, env=ENV).stdout.strip()
    assert backup.commit_of(tree) == head
    (tree / "main.py").write_text("print(2)\n")
    stamp = stamp_of(run(tree, "backup.sh"))
    assert f"{stamp}  commit {head}+" in run(tree, "backup.sh", "--list").stdout
    assert run(tree, "rollback.sh").stdout == run(tree, "backup.sh", "--list").stdout


def test_a_rollback_undoes_changed_new_and_lost_files_and_can_be_undone(tree: Path) -> None:
    before = contents(tree)
    stamp = stamp_of(run(tree, "backup.sh"))
    (tree / "main.py").write_text("print(2)\n")
    (tree / "start_multi_gpu.sh").unlink()
    (tree / "comfy/a.py").unlink()
    (tree / "comfy/new.py").write_text("")
    (tree / "comfy_extras").mkdir()
    (tree / "comfy_extras/c.py").write_text("")
    (tree / "own.py").write_text("mine")
    upgraded = contents(tree)
    done = run(tree, "rollback.sh", stamp)
    assert done.returncode == 0, done.stderr
    assert contents(tree) == {**before, "own.py": b"mine"}
    assert "own.py" in done.stdout
    assert os.access(tree / "start_multi_gpu.sh", os.X_OK)
    assert not (tree / "comfy/__pycache__").exists()
    assert (tree / "user/settings.json").read_text() == "{}"
    undo = done.stdout.split("./rollback.sh ")[1].split()[0]
    assert run(tree, "rollback.sh", undo).returncode == 0
    assert {name: data for name, data in contents(tree).items() if name != "start_multi_gpu.sh"} == upgraded
    assert [path.name for path in tree.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("what", ["root file", "archive", "manifest", "cut archive"])
def test_a_damaged_set_is_refused_and_nothing_is_changed(tree: Path, what: str) -> None:
    stamp = stamp_of(run(tree, "backup.sh"))
    folder = tree / "backups" / stamp
    if what == "root file":
        (folder / "main.py").write_text("print(3)\n")
    elif what == "manifest":
        (folder / "manifest.json").write_text("{")
    elif what == "cut archive":
        (folder / "packages.tar.gz").write_bytes((folder / "packages.tar.gz").read_bytes()[:-40])
    else:
        other = tree.parent / "other"
        shutil.copytree(tree, other)
        (other / "comfy/a.py").write_text("A = 2\n")
        shutil.copy(other / "backups" / stamp_of(run(other, "backup.sh")) / "packages.tar.gz", folder)
    (tree / "comfy/a.py").write_text("A = 3\n")
    before = contents(tree)
    refused = run(tree, "rollback.sh", stamp)
    assert refused.returncode == 1
    assert "Nothing was changed" in refused.stderr
    assert contents(tree) == before
    assert len(list((tree / "backups").iterdir())) == 1


@pytest.mark.parametrize("stamp", ["20200101_000000", "../..", "x"])
def test_an_unknown_stamp_is_refused_and_the_known_ones_are_told(tree: Path, stamp: str) -> None:
    known = stamp_of(run(tree, "backup.sh"))
    refused = run(tree, "rollback.sh", stamp)
    assert refused.returncode == 1
    assert known in refused.stderr


def test_sets_of_one_second_have_stamps_of_their_own(tree: Path) -> None:
    made = {stamp_of(run(tree, "backup.sh")) for _ in range(3)}
    assert backup.stamps(tree) == sorted(made)
    assert len(made) == 3
    assert all(backup.STAMP.fullmatch(stamp) for stamp in made)


def test_folders_are_swapped_all_or_none(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamp = backup.make(tree)
    (tree / "comfy/a.py").write_text("A = 2\n")
    before, rename = contents(tree), Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.parts[-2:] == ("new", "tools"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="No space"):
        backup.restore(tree, stamp)
    assert contents(tree) == before


def test_the_sets_own_program_restores_a_tree_that_lost_its_own(tree: Path) -> None:
    stamp = stamp_of(run(tree, "backup.sh"))
    (tree / "tools/backup.py").write_text("def broken(:\n")
    done = run(tree, "rollback.sh", stamp)
    assert done.returncode == 0, done.stderr
    assert (tree / "tools/backup.py").read_bytes() == (ROOT / "tools/backup.py").read_bytes()


def test_the_stamp_tells_a_mixed_tree_from_a_whole_one(tree: Path) -> None:
    assert version_stamp.mixed(tree) is None
    assert (version_stamp.MARK, version_stamp.PACKAGES) == (backup.MARK, backup.PACKAGES)
    stamp = backup.make(tree)
    shutil.copy(tree / "backups" / stamp / backup.MARK, tree)
    assert version_stamp.mixed(tree) is None
    (tree / "comfy/__pycache__/b.pyc").write_text("compiled")
    (tree / "comfy_extras/__pycache__").mkdir(parents=True)
    assert version_stamp.mixed(tree) is None
    (tree / "comfy_execution/b.py").write_text("B = 2\n")
    assert str(version_stamp.mixed(tree)).endswith(f"run ./rollback.sh {stamp}")
    (tree / backup.MARK).write_text("nothing of ours\n")
    assert "./rollback.sh <stamp>" in str(version_stamp.mixed(tree))


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A copy of the whole program."""
    program = tmp_path / "program"
    program.mkdir()
    for path in backup.root_files(ROOT):
        shutil.copy2(path, program)
    for folder in backup.FOLDERS:
        shutil.copytree(ROOT / folder, program / folder, ignore=shutil.ignore_patterns("__pycache__", "starter_model"))
    return program


def start(program: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "main.py", "--cpu", "--disable-all-custom-nodes", *flags]
    return subprocess.run(command, cwd=program, capture_output=True, text=True, env={**ENV, "OMP_NUM_THREADS": "1"}, check=False)


def test_a_broken_program_comes_back_and_serves(program: Path) -> None:
    stamp = stamp_of(run(program, "backup.sh"))
    # an upgrade that went wrong, and the way back that brings back half of it
    (program / "comfy/notify.py").write_text("def ready(\n")
    assert "SyntaxError" in start(program).stderr
    for path in (program / "backups" / stamp).glob("*.py"):
        shutil.copy(path, program)
    half = start(program)
    assert half.returncode == 2
    assert f"run ./rollback.sh {stamp}" in half.stderr
    assert len(half.stderr.splitlines()) == 1
    assert run(program, "rollback.sh", stamp).returncode == 0
    assert not (program / backup.MARK).exists()
    port, output = free_port(), program / "console"
    command = [sys.executable, "main.py", "--cpu", "--disable-all-custom-nodes", "--port", str(port)]
    with output.open("wb") as console:
        server = subprocess.Popen(command, cwd=program, env={**ENV, "OMP_NUM_THREADS": "1"}, stdout=console, stderr=console)
    try:
        ready = [sys.executable, "tools/wait_ready.py", f"http://127.0.0.1:{port}/ready", str(server.pid), "90"]
        assert subprocess.run(ready, cwd=program, check=False).returncode == 0, output.read_text(errors="replace")
    finally:
        server.terminate()
        assert server.wait(60) == 0
