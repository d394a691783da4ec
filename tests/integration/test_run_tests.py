"""run_tests.sh shows everything that is wrong and fails for it; in CI a test that is skipped for want of a program fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ("CI", "COMFY_", "OMP_", "MKL_", "PYTHON", "PYTEST", "PIP_", "STATUS_")
STUB = """import os, sys
name = {name!r}
print("ran", name, *sys.argv[1:], flush=True)
sys.exit(int(os.environ.get("STATUS_" + (name + "_" + sys.argv[1] if name == "ruff" else name), "0")))
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small repository whose ruff, mypy, pytest and shellcheck only say that they ran, and end as they are told."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("run_tests.sh", ".ci/run", "scripts/setup.sh", "constraints.txt"):
        (tree / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    for name in ("requirements.txt", "requirements-dev.txt"):
        (tree / name).write_text("# nothing\n")
    for name in ("ruff", "mypy", "pytest"):
        (tree / f"{name}.py").write_text(STUB.format(name=name))
    (tree / "bin").mkdir()
    for name in ("chromium", "jq", "shellcheck", "curl", "nginx", "systemd-analyze", "promtool"):
        (tree / "bin" / name).write_text(f"#!/bin/sh\necho ran {name}\nexit ${{STATUS_{name}:-0}}\n")
        (tree / "bin" / name).chmod(0o755)
    return tree


def run(tree: Path, command: str, *arguments: str, **settings: str) -> tuple[int, list[str]]:
    """Exit status and lines of standard output."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    base = getattr(sys, "_base_executable", None) or sys.executable
    env |= {"PATH": f"{tree / 'bin'}:{env['PATH']}", "PYTHON": base, "PIP_NO_INDEX": "1", **settings}
    done = subprocess.run([str(tree / command), *arguments], capture_output=True, text=True, cwd="/", env=env, check=False)
    return done.returncode, done.stdout.splitlines()


def ran(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("ran ")]


def test_all_checks_run_and_pytest_has_the_last_word(tree: Path) -> None:
    status, lines = run(tree, "run_tests.sh")
    assert status == 0
    words = [line.split()[1:] for line in ran(lines)]
    assert [two[:2] for two in words[:2]] == [["ruff", "format"], ["ruff", "check"]]
    assert [one[0] for one in words] == ["ruff", "ruff", "mypy", "shellcheck", "pytest"]
    assert lines[-1] == "ran pytest --continue-on-collection-errors"


@pytest.mark.parametrize("broken", ["ruff_format", "ruff_check", "mypy", "shellcheck", "pytest"])
def test_each_failure_fails_the_run_and_hides_no_other_check(tree: Path, broken: str) -> None:
    status, lines = run(tree, "run_tests.sh", **{f"STATUS_{broken}": "1"})
    assert status == 1
    assert lines[-1] == "ran pytest --continue-on-collection-errors"


def test_no_tests_at_all_is_a_failure(tree: Path) -> None:
    assert run(tree, "run_tests.sh", STATUS_pytest="5")[0] == 5


def test_arguments_go_to_pytest_and_nothing_else_runs(tree: Path) -> None:
    status, lines = run(tree, "run_tests.sh", "tests/unit/web", "-k", "one two", STATUS_mypy="1")
    assert status == 0
    assert ran(lines) == ["ran pytest tests/unit/web -k one two"]


def test_ci_runs_the_same_command(tree: Path) -> None:
    assert ran(run(tree, ".ci/run")[1]) == ran(run(tree, "run_tests.sh")[1])
    assert run(tree, ".ci/run", STATUS_mypy="1")[0] == 1


@pytest.mark.parametrize(("ci", "closing"), [("", "1 passed, 5 skipped"), ("1", "1 failed, 1 passed, 2 skipped, 2 errors")])
def test_in_ci_only_a_gpu_may_be_missing(tmp_path: Path, ci: str, closing: str) -> None:
    shutil.copy(ROOT / "tests/conftest.py", tmp_path / "conftest.py")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: needs a CUDA device\n")
    (tmp_path / "test_late.py").write_text("import pytest\nnowhere = pytest.importorskip('a_package_that_is_nowhere')\n")
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "def test_here(): pass\n"
        "def test_program(): pytest.skip('chromium is not installed')\n"
        "@pytest.mark.skipif(True, reason='nginx is not installed')\n"
        "def test_marked(): pass\n"
        "@pytest.mark.gpu\n"
        "def test_gpu(): pytest.skip('none')\n"
        "def test_cuda(): pytest.skip('needs CUDA')\n"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith(("CI", "PYTEST"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--continue-on-collection-errors"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**env, "CI": ci},
        check=False,
    )
    last = done.stdout.splitlines()[-1]
    assert last.startswith(closing), done.stdout
    assert done.returncode == (1 if ci else 0)
