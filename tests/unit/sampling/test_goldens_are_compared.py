"""Every recorded tensor of goldens a to g is compared by a test that notices when it changes, or is named as uncompared."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from torch import Tensor

from tests import goldens
from tests.golden_claims import CLAIMS, UNCOMPARED, Claim, claims_of, groups_of

FILES = sorted(path.stem for path in goldens.FOLDER.glob("[a-g]_*.safetensors"))


def function_of(one: Claim) -> Callable[..., None]:
    module, name = one.test.split(":")
    found: Callable[..., None] = getattr(importlib.import_module(f"tests.{module}"), name)
    return found


def parametrized(function: Callable[..., None]) -> list[dict[str, Any]]:
    """Every combination of arguments that pytest calls the function with."""
    calls: list[dict[str, Any]] = [{}]
    for mark in getattr(function, "pytestmark", []):
        if mark.name == "parametrize":
            names = [name.strip() for name in mark.args[0].split(",")] if isinstance(mark.args[0], str) else list(mark.args[0])
            values = [dict(zip(names, row if len(names) > 1 else (row,))) for row in mark.args[1]]
            calls = [{**call, **value} for call in calls for value in values]
    return calls


def uncompared(file: str, key: str) -> bool:
    return any(file == of and re.fullmatch(pattern, key) for of, pattern in UNCOMPARED)


def test_the_record_has_the_files_that_claims_are_about() -> None:
    assert {one.file for one in CLAIMS} | {file for file, _ in UNCOMPARED} == set(FILES)


@pytest.mark.parametrize("file", FILES)
def test_every_tensor_is_claimed_by_a_call_that_pytest_makes(file: str) -> None:
    made = {one: parametrized(function_of(one)) for one in CLAIMS if one.file == file}
    for key in goldens.tensors(file):
        claimed = list(claims_of(file, key))
        assert bool(claimed) != uncompared(file, key), key
        for one, given in claimed:
            assert one.inputs or given in made[one], f"{key}: {one.test} is never called with {given}"


@pytest.mark.parametrize(("file", "pattern"), UNCOMPARED)
def test_what_is_named_as_uncompared_is_in_the_record(file: str, pattern: str) -> None:
    assert any(re.fullmatch(pattern, key) for key in goldens.tensors(file))


def disturb(tensor: Tensor, whole: bool) -> None:
    """Change one number of the tensor in place, the middle one that is finite, or all of them."""
    flat = tensor.view(-1)
    finite = [int(i) for i in flat.isfinite().nonzero()]
    for i in finite if whole else [finite[len(finite) // 2]]:
        flat[i] = flat[i] ^ 0x55 if not tensor.is_floating_point() else flat[i] + 1 + abs(flat[i])


def notices(function: Callable[..., None], call: dict[str, Any]) -> bool:
    """Whether the test fails when it is called so. Any error counts: a changed input may break the run."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        more = {"monkeypatch": monkeypatch} if "monkeypatch" in inspect.signature(function).parameters else {}
        try:
            function(**call, **more)
        except Exception:
            return True
    return False


def examples(one: Claim) -> Iterator[str]:
    """A few keys of the claim: the first, the middle and the last that hold numbers."""
    keys = [key for key, tensor in goldens.tensors(one.file).items() if groups_of(one, key) is not None and tensor.numel()]
    yield from dict.fromkeys(keys if one.inputs else (keys[0], keys[len(keys) // 2], keys[-1]))


@pytest.mark.parametrize("one", CLAIMS, ids=lambda one: f"{one.file}-{one.test.split('_', 1)[1]}")
def test_a_changed_number_is_noticed(one: Claim) -> None:
    function = function_of(one)
    for key in examples(one):
        given = groups_of(one, key)
        assert given is not None
        calls = parametrized(function) if one.inputs else [given]
        tensor = goldens.tensors(one.file)[key]
        kept = tensor.clone()
        disturb(tensor, whole=one.inputs)
        try:
            assert any(notices(function, call) for call in calls), f"{key} was changed, and {one.test} did not notice"
        finally:
            tensor.copy_(kept)


def test_the_record_may_lie_elsewhere_and_a_number_changed_there_is_noticed(tmp_path: Path) -> None:
    stored = {key: tensor.clone() for key, tensor in goldens.tensors("e_adm").items()}
    disturb(stored["sdxl/full"], whole=False)
    save_file(stored, tmp_path / "e_adm.safetensors")
    shutil.copy(goldens.FOLDER / "e_adm.json", tmp_path)
    root = Path(goldens.__file__).parents[1]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/models/test_adm.py"]
    run = subprocess.run(command, cwd=root, env={**os.environ, "GOLDENS_DIR": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert re.findall(r"^FAILED \S+\[(\S+)\]", run.stdout, re.MULTILINE) == ["sdxl/full"], run.stdout + run.stderr
