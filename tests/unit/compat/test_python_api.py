"""Every name of custom-nodes.md section 6 that two packs or more use: it imports, and takes the parameters that they give.

tests/data/python_api.json: module -> name -> parameters with defaults where callers rely on one, or null for "is there".
Positions count, `self` does not; a name that begins with `_` is free, and after `*` a parameter may stand anywhere. Further
parameters need defaults. What docs/custom-nodes.md lists as not there yet may fail; when it does not, shorten the list.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

import comfy.cli_args

ROOT = Path(__file__).resolve().parents[3]
TABLE: dict[str, dict[str, str | None]] = json.loads((ROOT / "tests/data/python_api.json").read_text(encoding="utf-8"))
ROWS = [(module, name, signature) for module, names in TABLE.items() for name, signature in (names or {"": None}).items()]


def missing_by_the_docs() -> set[str]:
    """`module.name` for each name in the code block below "Not there yet"."""
    text = (ROOT / "docs/custom-nodes.md").read_text(encoding="utf-8")
    block = re.search(r"## Not there yet.*?```\n(.*?)```", text, re.DOTALL)
    assert block is not None
    names = set()
    for line in block.group(1).splitlines():
        module, _, listed = line.partition(": ")
        names |= {f"{module}.{name}".rstrip(".") for name in listed.split()} or {module}
    return names


MISSING = missing_by_the_docs()


def find(module: str, name: str) -> Any:
    found: Any = importlib.import_module(module)
    for part in name.split(".") if name else ():
        found = inspect.getattr_static(found, part) if isinstance(found, type) else getattr(found, part)
    return found


def required(signature: str) -> ast.arguments:
    function = ast.parse(f"def f{signature}: pass").body[0]
    assert isinstance(function, ast.FunctionDef)
    return function.args


def parameters(found: Any, is_member: bool) -> list[inspect.Parameter]:
    static = isinstance(found, staticmethod)
    bound = isinstance(found, classmethod)
    function = found.__func__ if static or bound else found
    given = list(inspect.signature(function).parameters.values())
    return given[1:] if is_member and not static and not isinstance(function, type) else given


@pytest.mark.parametrize(("module", "name", "signature"), ROWS, ids=[f"{module}.{name}".rstrip(".") for module, name, _ in ROWS])
def test_a_name_of_the_ecosystem(module: str, name: str, signature: str | None) -> None:
    full = f"{module}.{name}".rstrip(".")
    if full in MISSING or module in MISSING:
        pytest.xfail("not there yet")
    found = find(module, name)
    if signature is None:
        return
    wanted = required(signature)
    given = parameters(found, "." in name and not isinstance(found, type))
    positional = [p for p in given if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    anything = any(p.kind is p.VAR_POSITIONAL for p in given) and any(p.kind is p.VAR_KEYWORD for p in given)
    if anything and not positional:
        return
    with_default = len(wanted.args) - len(wanted.defaults)
    assert len(positional) >= len(wanted.args)
    named = [(p.name, arg.arg) for p, arg in zip(positional, wanted.args) if not arg.arg.startswith("_")]
    assert [mine for mine, _ in named] == [theirs for _, theirs in named]
    assert {arg.arg for arg in wanted.kwonlyargs} <= {p.name for p in given}
    for index, parameter in enumerate(positional):
        assert index < with_default or parameter.default is not inspect.Parameter.empty, f"{parameter.name} has no default"


def test_the_docs_list_no_name_that_nobody_asked_for() -> None:
    known = {f"{module}.{name}".rstrip(".") for module, name, _ in ROWS} | set(TABLE)
    assert sorted(MISSING - known) == []


def test_the_namespace_of_flags_is_a_plain_object() -> None:
    before = comfy.cli_args.args.preview_method
    comfy.cli_args.args.preview_method = "auto"
    try:
        assert comfy.cli_args.args.preview_method == "auto"
    finally:
        comfy.cli_args.args.preview_method = before
