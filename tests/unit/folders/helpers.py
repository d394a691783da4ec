"""A Folders over a temporary base folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy.config import Config
from comfy.folders import Folders


def config_in(base: Path, **settings: Any) -> Config:
    folders = {f"{name}_dir": base / name for name in ("output", "input", "temp", "user")}
    return Config(**{"base_dir": base, **folders, **settings})


def folders_in(base: Path, program_dir: Path | None = None, **settings: Any) -> Folders:
    return Folders(config_in(base, **settings), program_dir or base)


def put(path: Path, content: bytes | str = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
