"""start_multi_gpu.sh in a small tree of its own: set-up once, environment, clear refusals, foreground and background."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ("COMFY_", "CUDA_VISIBLE_DEVICES", "OMP_", "MKL_", "PYTHON", "PIP_")
#: an interpreter that is no virtual environment: what a fresh machine has
BASE_PYTHON = getattr(sys, "_base_executable", None) or sys.executable


def make_tree(folder: Path, requirements: str = "# nothing\n") -> Path:
    """What start_multi_gpu.sh needs of the repository, with a stand-in for main.py and next to no requirements."""
    for name in ("start_multi_gpu.sh", "scripts/setup.sh", "tools/wait_ready.py", "constraints.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    shutil.copy(Path(__file__).with_name("fake_main.py"), folder / "main.py")
    (folder / "requirements.txt").write_text(requirements)
    return folder


def fake_nvidia_smi(folder: Path, gpus: int) -> Path:
    """A folder for PATH with an nvidia-smi that lists so many GPUs, or fails as it does without a driver."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(f"echo 'GPU {index}: NVIDIA Something (UUID: GPU-{index})'" for index in range(gpus))
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{lines or 'exit 9'}\n")
    (folder / "nvidia-smi").chmod(0o755)
    return folder


class Tree:
    """A tree and the machine that it pretends to be on."""

    def __init__(self, folder: Path, bin_dir: Path) -> None:
        self.folder = folder
        self.bin_dir = bin_dir

    def env(self, gpus: int = 0, **settings: str) -> dict[str, str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
        path = fake_nvidia_smi(self.bin_dir / str(gpus), gpus)
        return {**env, "PATH": f"{path}:{env['PATH']}", "PYTHON": BASE_PYTHON, "PIP_NO_INDEX": "1", **settings}

    def start(self, *flags: str, gpus: int = 0, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.folder / "start_multi_gpu.sh"), *flags],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd="/",
            env=self.env(gpus, **settings),
            check=False,
        )


def facts(done: subprocess.CompletedProcess[str]) -> dict:
    """What the stand-in for main.py was given."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    folder = tmp_path_factory.mktemp("set up")  # a space in the path, as users have
    tree = Tree(make_tree(folder / "tree"), folder / "bin")
    first = tree.start()
    assert "Making .venv" in first.stderr
    assert "Installing the packages" in first.stderr
    assert facts(first)["prefix"] == str(tree.folder / ".venv")
    return tree


@pytest.fixture
def bare(tmp_path: Path) -> Tree:
    """A tree before its first start."""
    return Tree(make_tree(tmp_path / "tree"), tmp_path / "bin")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_second_start_installs_nothing(tree: Tree) -> None:
    again = tree.start()
    assert again.stderr == ""
    facts(again)


def test_a_changed_requirement_is_installed_once(tree: Tree) -> None:
    (tree.folder / "requirements.txt").write_text("# nothing, said otherwise\n")
    assert "Installing the packages" in tree.start().stderr
    assert tree.start().stderr == ""


def test_flags_reach_main_in_order_and_paths_are_the_trees(tree: Tree) -> None:
    given = facts(tree.start("--listen", "0.0.0.0", "--port", "18188", "--output-directory", "a b"))
    assert given["argv"] == ["--listen", "0.0.0.0", "--port", "18188", "--output-directory", "a b"]
    assert given["cwd"] == str(tree.folder)


def test_without_gpus_the_number_of_lanes_is_left_to_main(tree: Tree) -> None:
    env = facts(tree.start())["env"]
    assert env["COMFY_MULTI_GPU_SCHED"] == "1"
    assert env["COMFY_NUM_GPUS"] is None
    assert env["CUDA_VISIBLE_DEVICES"] is None
    assert env["OMP_NUM_THREADS"] == env["MKL_NUM_THREADS"] == str(max(1, cores() // 2))


def cores() -> int:
    """As the script counts: affinity and, in a container, its quota."""
    count = len(os.sched_getaffinity(0))
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.exists() and not quota.read_text().startswith("max"):
        limit, period = (int(word) for word in quota.read_text().split())
        count = min(count, -(-limit // period))
    return count


@pytest.mark.parametrize(
    ("gpus", "settings", "flags", "lanes", "visible"),
    [
        (4, {}, [], "4", "0,1,2,3"),
        (4, {"COMFY_NUM_GPUS": "2"}, [], "2", "0,1,2,3"),
        (4, {"CUDA_VISIBLE_DEVICES": "2,3"}, [], "2", "2,3"),
        (4, {"CUDA_VISIBLE_DEVICES": ""}, [], None, ""),
        (4, {}, ["--cpu"], None, None),
        (0, {"COMFY_NUM_GPUS": "3"}, [], "3", None),
    ],
)
def test_lanes_and_devices(
    tree: Tree, gpus: int, settings: dict[str, str], flags: list[str], lanes: str | None, visible: str | None
) -> None:
    env = facts(tree.start(*flags, gpus=gpus, **settings))["env"]
    assert (env["COMFY_NUM_GPUS"], env["CUDA_VISIBLE_DEVICES"]) == (lanes, visible)
    assert env["OMP_NUM_THREADS"] == str(max(1, cores() // int(lanes or 2)))


def test_what_is_set_stays(tree: Tree) -> None:
    env = facts(tree.start(COMFY_MULTI_GPU_SCHED="0", OMP_NUM_THREADS="7", MKL_NUM_THREADS="5"))["env"]
    assert (env["COMFY_MULTI_GPU_SCHED"], env["OMP_NUM_THREADS"], env["MKL_NUM_THREADS"]) == ("0", "7", "5")


@pytest.mark.parametrize(
    ("settings", "flags", "words"),
    [
        ({"COMFY_NUM_GPUS": "many"}, [], "COMFY_NUM_GPUS must be a whole number, 1 or more; it is 'many'."),
        ({"COMFY_NUM_GPUS": "0"}, [], "COMFY_NUM_GPUS must be a whole number, 1 or more; it is '0'."),
        ({"COMFY_NUM_GPUS": "-1"}, [], "COMFY_NUM_GPUS must be a whole number, 1 or more; it is '-1'."),
        ({"COMFY_NUM_GPUS": "8"}, [], "COMFY_NUM_GPUS is 8, but only 4 GPU(s) can be used here."),
        ({}, ["--num-gpus", "5"], "--num-gpus is 5, but only 4 GPU(s) can be used here."),
        ({"CUDA_VISIBLE_DEVICES": "1", "COMFY_NUM_GPUS": "2"}, [], "COMFY_NUM_GPUS is 2, but only 1 GPU(s) can be used here."),
        ({"COMFY_NUM_GPUS": "99999999999999999999"}, [], "no machine has that many GPUs"),
    ],
)
def test_a_wrong_number_of_lanes_is_refused_before_anything_is_made(
    bare: Tree, settings: dict[str, str], flags: list[str], words: str
) -> None:
    done = bare.start(*flags, gpus=4, **settings)
    assert done.returncode == 2
    assert words in done.stderr
    assert not (bare.folder / ".venv").exists()


def test_a_taken_port_is_refused_before_anything_is_made(bare: Tree) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = bare.start(f"--port={port}")
    assert done.returncode == 2
    assert f"Port {port} on 127.0.0.1 is taken" in done.stderr
    assert not (bare.folder / ".venv").exists()


def test_a_python_that_is_too_old_is_named(bare: Tree) -> None:
    old = bare.folder / "python-old"
    old.write_text("#!/bin/sh\necho 3.9.18\nexit 1\n")
    old.chmod(0o755)
    done = bare.start(PYTHON=str(old))
    assert done.returncode == 2
    assert f"PYTHON={old} cannot be used: Python 3.10, 3.11, 3.12 or 3.13 is needed. Found: {old} is 3.9.18;" in done.stderr


def test_a_missing_python_is_named(bare: Tree) -> None:
    done = bare.start(PYTHON="/nowhere/python3")
    assert done.returncode == 2
    assert "PYTHON=/nowhere/python3 cannot be used" in done.stderr


def test_packages_that_cannot_be_installed_end_the_start_and_are_tried_again(tree: Tree) -> None:
    requirements = tree.folder / "requirements.txt"
    before = requirements.read_text()
    requirements.write_text("a-package-that-is-nowhere==1.0\n")
    try:
        done = tree.start()
        assert done.returncode == 2
        assert "The packages could not be installed" in done.stderr
        assert "Installing the packages" in tree.start().stderr
    finally:
        requirements.write_text(before)


def test_a_set_up_that_was_cut_off_is_finished(tree: Tree) -> None:
    for part in tree.folder.glob(".venv/lib/python*/site-packages/pip*"):
        shutil.rmtree(part)
    (tree.folder / ".venv" / ".installed-run").unlink(missing_ok=True)
    facts(tree.start())
    assert tree.start().stderr == ""


@contextmanager
def python_with_torch(folder: Path, version: str) -> Iterator[str]:
    """An interpreter that can import a (tiny) torch of this version; it is a virtual environment itself."""
    subprocess.run([BASE_PYTHON, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "torch").mkdir()
    (site / "torch" / "__init__.py").write_text(f"__version__ = {version!r}\n")
    (site / f"torch-{version}.dist-info").mkdir()
    (site / f"torch-{version}.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
    (site / f"torch-{version}.dist-info" / "RECORD").write_text("")
    (site / f"torch-{version}.dist-info" / "INSTALLER").write_text("test\n")
    yield str(folder / "bin" / "python")


def test_a_torch_of_the_named_interpreter_is_used_as_it_is(bare: Tree, tmp_path: Path) -> None:
    (bare.folder / "requirements.txt").write_text("torch\n")
    with python_with_torch(tmp_path / "host", "2.11.0+cu130") as python:
        first = bare.start(PYTHON=python)
        assert facts(first)["torch"] == "2.11.0+cu130"
        assert "Using torch 2.11.0+cu130" in first.stderr
        assert bare.start(PYTHON=python).stderr == ""
        later = bare.start(PYTHON="")  # the next start does not name the interpreter again
        assert later.stderr == ""
        assert facts(later)["torch"] == "2.11.0+cu130"


@pytest.mark.parametrize(("version", "usable"), [("2.7.1", False), ("2.8.0", True), ("3.0.0", True), ("1.13.1", False)])
def test_only_a_torch_from_2_8_on_is_used(tmp_path: Path, version: str, usable: bool) -> None:
    with python_with_torch(tmp_path / "host", version) as python:
        asked = ["bash", "-c", f"source '{ROOT}/scripts/setup.sh'; usable_torch '{python}'"]
        assert subprocess.run(asked, capture_output=True, text=True, check=False).stdout == (f"{version}\n" if usable else "")


def test_in_the_foreground_the_script_becomes_python(tree: Tree) -> None:
    process = subprocess.Popen([str(tree.folder / "start_multi_gpu.sh")], stdout=subprocess.PIPE, text=True, env=tree.env())
    output, _ = process.communicate()
    assert json.loads(output)["pid"] == process.pid


def test_detach_returns_when_ready_with_pid_and_log(tree: Tree) -> None:
    done = tree.start("--detach", "--serve", "--port", str(free_port()))
    assert done.returncode == 0, done.stderr
    printed = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    try:
        assert "Worker started" in (tree.folder / printed["log"]).read_text()
        assert Path(printed["log"]).name.startswith("comfyui_")
        command = Path(f"/proc/{printed['pid']}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        assert "python" in command
        assert "main.py" in command
    finally:
        os.kill(int(printed["pid"]), signal.SIGTERM)


def test_detach_passes_on_why_the_server_did_not_start(tree: Tree) -> None:
    done = tree.start("--detach", "--refuse", "--port", str(free_port()))
    assert done.returncode == 2
    assert "A setting is wrong; the server does not start." in done.stderr


def test_help_needs_no_set_up(bare: Tree) -> None:
    done = bare.start("--help")
    assert done.returncode == 0
    assert "--detach" in done.stdout
    assert not (bare.folder / ".venv").exists()
