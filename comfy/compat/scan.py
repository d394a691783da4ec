"""Reads the source of custom-node packs, without running it, for habits that matter on a server of many GPUs.

Only real uses count: a string in a call or an assignment, not a comment, a docstring or a piece of prose.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CUDA_INDEX = re.compile(r"cuda:\d+")
#: calls that seed a generator which all lanes share
_SEEDS = frozenset({"torch.manual_seed", "random.seed", "np.random.seed", "numpy.random.seed", "torch.random.manual_seed", "torch.seed"})
_SEED_SUFFIXES = ("cuda.manual_seed", "cuda.manual_seed_all")
_SKIPPED_FOLDERS = frozenset({"__pycache__", ".git", "tests", "test", "node_modules", ".venv", "venv"})


@dataclass(frozen=True)
class Finding:
    """One hard-coded device: where, and what stands there."""

    path: Path
    line: int
    what: str


@dataclass(frozen=True)
class Report:
    """What one pack's source shows. `seeds`: it seeds torch's, NumPy's or Python's shared generator."""

    files: int
    devices: tuple[Finding, ...]
    seeds: bool


def scan(root: Path) -> Report:
    """Read every .py file of a pack (a folder, or one file). Files that do not parse are passed over: they cannot run either."""
    findings: list[Finding] = []
    files, seeds = 0, False
    for path in _sources(root):
        tree = _parse(path)
        if tree is None:
            continue
        files += 1
        findings += sorted(_devices(path, tree), key=lambda finding: finding.line)
        seeds = seeds or any(_seeds(node) for node in ast.walk(tree))
    return Report(files, tuple(findings), seeds)


def _sources(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
        return
    for path in sorted(root.rglob("*.py")):
        if not _SKIPPED_FOLDERS.intersection(path.relative_to(root).parts):
            yield path


def _parse(path: Path) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in a pack's strings are not our business
            return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return None


def _devices(path: Path, tree: ast.Module) -> Iterator[Finding]:
    idle = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings and other bare strings
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in idle and _CUDA_INDEX.fullmatch(node.value):
            yield Finding(path, node.lineno, repr(node.value))
        elif isinstance(node, ast.Call):
            name = _dotted(node.func)
            if name.endswith("cuda.set_device"):
                yield Finding(path, node.lineno, f"{name}(…)")
            elif name.endswith(".cuda") and node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, int):
                yield Finding(path, node.lineno, f".cuda({node.args[0].value})")


def _seeds(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = _dotted(node.func)
    return name in _SEEDS or name.endswith(_SEED_SUFFIXES)


def _dotted(node: ast.AST) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    parts.append(node.id if isinstance(node, ast.Name) else "")
    return ".".join(reversed(parts))
