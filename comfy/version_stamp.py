"""Whether the files in the root and the packages belong together.

`cp backups/<stamp>/*.py ./` brings back the root files of an earlier version and leaves the packages of the present one.
Each set of backup.sh therefore holds a file MARK, which that `cp` copies too: the set's stamp and a digest of its
packages. main.py calls `mixed()` before it imports anything else, as a mixed tree may not even import. rollback.sh
brings back both and leaves no MARK behind. Standard library only, and as little of it as can be.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

MARK = "backup_stamp.py"
PACKAGES = ("comfy", "comfy_api", "comfy_execution", "comfy_extras")
PATTERN = re.compile(r'^(STAMP|PACKAGES) = "([0-9a-f_]+)"$', re.MULTILINE)


def digest(root: Path) -> str:
    """SHA-256 over the packages' files: of what `sha256sum` prints for them in the order of their paths. Caches count not."""
    lines = []
    for package in PACKAGES:
        for path in (root / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                lines.append((path.relative_to(root).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()))
    return hashlib.sha256("".join(f"{sha}  {name}\n" for name, sha in sorted(lines)).encode()).hexdigest()


def mixed(root: Path) -> str | None:
    """What to do about a tree whose root files come from a backup and whose packages do not; None for a tree that is whole."""
    try:
        found = dict(PATTERN.findall((root / MARK).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    stamp = found.get("STAMP", "<stamp>")
    if found.get("PACKAGES") == digest(root):
        return None
    return f"The files in {root} are of backup {stamp}, the packages beside them are not: run ./rollback.sh {stamp}"
