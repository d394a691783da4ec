"""What the folders of custom-node packs offer to the front end: example workflows and translations.

Facts: custom-nodes.md section 1.4, http-api.md section 8. Nothing of a pack is run here.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from typing import Any

from comfy.errors import ComfyError
from comfy.folders.confine import confine

log = logging.getLogger(__name__)

WORKFLOW_FOLDERS = ("example_workflows", "example", "examples", "workflow", "workflows")
#: files of a language beside main.json -> the key that they are put under
_LOCALE_PARTS = {"nodeDefs.json": "nodeDefs", "commands.json": "commands", "settings.json": "settings"}


def pack_folders(parents: list[str]) -> Iterator[tuple[str, str]]:
    """(pack name, its folder) for every enabled pack in the folders of `custom_nodes`, in name order."""
    for parent in parents:
        try:
            names = sorted(os.listdir(parent))
        except OSError:
            continue
        for name in names:
            folder = os.path.join(parent, name)
            if name != "__pycache__" and not name.endswith(".disabled") and os.path.isdir(folder):
                yield name, folder


def workflow_templates(parents: list[str]) -> dict[str, list[str]]:
    """Pack -> names (without .json) of its example workflows, sorted; packs without any are left out."""
    templates: dict[str, list[str]] = {}
    for name, folder in pack_folders(parents):
        found = {
            entry.removesuffix(".json")
            for kind in WORKFLOW_FOLDERS
            for entry in _names(os.path.join(folder, kind))
            if entry.endswith(".json")
        }
        if found:
            templates[name] = sorted(set(templates.get(name, [])) | found)
    return templates


def template_file(parents: list[str], pack: str, name: str) -> str | None:
    """Path of a file beside a pack's example workflows, looked for in every one of its folders; None when there is none."""
    for found, folder in pack_folders(parents):
        if found != pack:
            continue
        for kind in WORKFLOW_FOLDERS:
            try:
                path = confine(os.path.join(folder, kind), name)
            except ComfyError:
                return None
            if os.path.isfile(path):
                return path
    return None


def translations(parents: list[str]) -> dict[str, Any]:
    """Language -> merged translations of all packs; a later pack wins where two say different things. Broken files are logged."""
    merged: dict[str, Any] = {}
    for _, folder in pack_folders(parents):
        locales = os.path.join(folder, "locales")
        for language in _names(locales):
            texts = _locale(os.path.join(locales, language))
            if texts:
                merged[language] = merge(merged.get(language, {}), texts)
    return merged


def merge(first: Any, second: Any) -> Any:
    """Objects merge deeply, lists concatenate, else the second wins."""
    if isinstance(first, dict) and isinstance(second, dict):
        return {**first, **{key: merge(first[key], value) if key in first else value for key, value in second.items()}}
    if isinstance(first, list) and isinstance(second, list):
        return first + second
    return second


def _locale(folder: str) -> dict[str, Any]:
    texts = _read_json(os.path.join(folder, "main.json"))
    for name, key in _LOCALE_PARTS.items():
        part = _read_json(os.path.join(folder, name))
        if part:
            texts = merge(texts, {key: part})
    return texts


def _read_json(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        if isinstance(content, dict):
            return content
        log.warning("%s is passed over: it is no JSON object", path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s is passed over: %s", path, error)
    return {}


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
