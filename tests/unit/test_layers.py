"""Every module imports from its own layer and lower ones only: docs/decisions/0001, read from the sources by ast.

Imports inside functions count too: a late import hides a wrong arrow, it does not turn it.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EDGE = "edge"
#: module or package -> layer; the longest name that fits counts
LAYERS: dict[str, int] = {
    **{
        f"comfy.{name}": 0
        for name in ("errors", "config", "units", "control", "replaceable", "folders", "logs", "jsonio", "data", "notify", "version_stamp")
    },
    "comfy.weights": 1,
    "comfy.device": 2,
    **{f"comfy.{name}": 3 for name in ("ldm", "cldm", "text_encoders", "ops")},
    **{f"comfy.{name}": 4 for name in ("sampling", "k_diffusion", "images", "images_io", "latent_formats", "pixels")},
    "comfy.models": 5,
    **dict.fromkeys(("comfy.nodes", "comfy_extras"), 6),
    **dict.fromkeys(("execution", "comfy_execution"), 7),
    **dict.fromkeys(("server", "comfy.web"), 8),
    "main": 9,
}
#: names that only custom nodes import, where they expect them; what else lies in comfy/ itself is edge as well
EDGE_NAMES = (
    "nodes",
    "folder_paths",
    "node_helpers",
    "latent_preview",
    "protocol",
    "comfyui_version",
    "comfy_extras.chainner_models",
    "comfy_api",
    "comfy_config",
    "cuda_malloc",
    "comfy.compat",
)
#: what L0 needs besides the standard library: YAML is the format of users' path files
BESIDES_STDLIB = {"comfy.folders.extra_paths": {"yaml"}}
#: folders of the root that hold no part of the server
OUTSIDE = {"tests", "tools", "benchmarks", "scripts", "docs", "models", "custom_nodes", "backups"}


def layer_of(module: str) -> int | str | None:
    """The layer's number, EDGE, or None for what is not ours."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if name in LAYERS:
            return LAYERS[name]
        if name in EDGE_NAMES:
            return EDGE
    if parts[0] == "comfy":
        return EDGE if len(parts) > 1 else 0
    return None


@cache
def sources() -> dict[str, Path]:
    """Our modules by dotted name."""
    found = {}
    for path in [*ROOT.glob("*.py"), *(file for folder in ROOT.iterdir() if folder.is_dir() for file in folder.rglob("*.py"))]:
        relative = path.relative_to(ROOT)
        if relative.parts[0] in OUTSIDE or relative.parts[0].startswith("."):
            continue
        found[".".join(relative.with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def imports(module: str, text: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each import; `from a import b` gives a.b when that is a module of ours, else a."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if is_package else module.split(".")[:-1]
                parents = package[: len(package) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield node.lineno, full if full in sources() else base


def forbidden(importer: str, imported: str) -> str | None:
    """Why the import is against the rules, or None."""
    mine, theirs = layer_of(importer), layer_of(imported)
    if theirs is None:
        outside = imported.split(".")[0]
        allowed = outside in sys.stdlib_module_names or outside in BESIDES_STDLIB.get(importer, ())
        return f"{outside} is not in the standard library" if mine == 0 and not allowed else None
    if mine == EDGE:
        return "nothing imports main.py" if theirs == 9 else None
    if theirs == EDGE:
        return None if mine == 9 else "only main.py, tests and packs import the edge"
    assert isinstance(mine, int)
    assert isinstance(theirs, int)
    return f"L{mine} imports L{theirs}" if theirs > mine else None


def test_every_module_of_ours_has_a_layer() -> None:
    assert [name for name in sources() if layer_of(name) is None] == []


@pytest.mark.parametrize("module", sorted(sources()))
def test_imports_go_down(module: str) -> None:
    path = sources()[module]
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}: {reason}"
        for line, name in imports(module, path.read_text(encoding="utf-8"), path.name == "__init__.py")
        if (reason := forbidden(module, name)) is not None
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("comfy.weights.cache", "comfy.errors", True),
        ("comfy.errors", "comfy.weights.cache", False),
        ("comfy.errors", "torch", False),
        ("comfy.errors", "re", True),
        ("comfy.device.context", "comfy_execution.job", False),
        ("comfy.models.loader", "comfy.samplers", False),
        ("comfy.samplers", "comfy.sampling.guidance", True),
        ("main", "nodes", True),
        ("server", "main", False),
        ("nodes", "main", False),
        ("comfy.ldm.models", "torch", True),
    ],
)
def test_the_rules_themselves(importer: str, imported: str, allowed: bool) -> None:
    assert (forbidden(importer, imported) is None) is allowed


def test_relative_and_late_imports_are_seen() -> None:
    text = "def f():\n    from ..errors import ConfigError\n    import comfy_execution.job\n"
    assert list(imports("comfy.weights.cache", text, is_package=False)) == [(2, "comfy.errors"), (3, "comfy_execution.job")]


def test_the_table_is_the_one_of_the_decision() -> None:
    """Each place that docs/decisions/0001 names for a numbered layer is in LAYERS with that number."""
    rows = re.findall(r"^\| L(\d) \| ([^|]+) \|", (ROOT / "docs/decisions/0001-the-seams.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == 10
    for number, places in rows:
        for place in re.findall(r"`([^`]+)`", places):
            head, _, tail = place.partition("{")
            names = [head + name for name in tail.split("}")[0].split(",")] if tail else [head]
            for name in names:
                module = name.strip().removesuffix(".py").strip("/").replace("/", ".")
                assert layer_of(module) == int(number), module
