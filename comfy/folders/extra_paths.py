"""extra_model_paths.yaml: model folders elsewhere. Facts: cli.md section 3, whose marked defects are mended here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from comfy.errors import ConfigError
from comfy.folders.models import ModelFolders


def load(path: Path, models: ModelFolders) -> None:
    """Add the folders that the file at `path` names. Raises ConfigError when the file cannot be read or understood.

    With `is_default` all folders of a key go to the front in the order of their lines. Absent folders are added all the
    same, `custom_nodes` too: they list as empty.
    """
    beside = os.path.dirname(os.path.abspath(path))
    for section, keys in _sections(path).items():
        if keys is None:
            continue
        if not isinstance(keys, dict):
            raise ConfigError(f"Section {section!r} must be a mapping of keys to folders.", file=str(path))
        keys = dict(keys)
        base = _text(keys.pop("base_path", None), path, section, "base_path")
        first = keys.pop("is_default", None) or False
        if not isinstance(first, bool):
            raise ConfigError(f"Section {section!r}: is_default must be true or false.", file=str(path))
        root = beside if base is None else os.path.join(beside, os.path.expandvars(os.path.expanduser(base)))
        for kind, value in keys.items():
            folders = [os.path.normpath(os.path.join(root, line)) for line in _lines(value, path, section, kind)]
            for folder in reversed(folders) if first else folders:
                models.add(str(kind), folder, is_default=first)


def _sections(path: Path) -> dict[Any, Any]:
    try:
        import yaml
    except ImportError as error:
        raise ConfigError("Reading it needs the package PyYAML.", file=str(path)) from error
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"The file of extra model paths cannot be read: {error}", file=str(path)) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError("The file of extra model paths must be a mapping of sections.", file=str(path))
    return content


def _lines(value: Any, path: Path, section: Any, key: Any) -> list[str]:
    parts = value if isinstance(value, list) else [value]
    lines: list[str] = []
    for part in parts:
        text = _text(part, path, section, key) or ""
        lines += [line.strip() for line in text.split("\n") if line.strip()]
    return lines


def _text(value: Any, path: Path, section: Any, key: Any) -> str | None:
    if value is None or isinstance(value, str):
        if value is not None and "\0" in value:
            raise ConfigError(f"Section {section!r}, key {key!r}: a path holds a NUL byte.", file=str(path))
        return value
    raise ConfigError(f"Section {section!r}, key {key!r}: a folder must be text.", file=str(path))
