"""Finds and loads custom-node packs (contract: custom-nodes.md section 1). A pack that fails is logged; the server goes on."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from comfy.compat.scan import scan
from comfy.config import Config
from comfy.nodes.registry import NodeRegistry

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pack:
    """One entry of a custom_nodes folder that may be loaded: a folder, or a single .py file."""

    path: Path

    @property
    def name(self) -> str:
        """Folder name, or the file's stem."""
        return self.path.stem if self.path.is_file() else self.path.name

    @property
    def home(self) -> Path:
        """The folder that its files lie in."""
        return self.path.parent if self.path.is_file() else self.path

    @property
    def listed_as(self) -> str:
        """Key in `nodes.LOADED_MODULE_DIRS`: the folder's name, or a file's path without suffix."""
        return str(self.path.with_suffix("")) if self.path.is_file() else self.name

    @property
    def module_name(self) -> str:
        """Key in sys.modules: the path with every `.` as `_x_`, so that relative imports work; a file's path without suffix."""
        return str(self.path.with_suffix("")) if self.path.is_file() else str(self.path).replace(".", "_x_")


@dataclass(frozen=True)
class Loaded:
    """What became of one pack."""

    pack: Pack
    seconds: float
    error: str | None = None
    node_names: tuple[str, ...] = ()
    seeds: bool = False
    web_dirs: dict[str, str] = field(default_factory=dict)  #: name below /extensions -> folder


def find_packs(folders: Iterable[str | Path], config: Config) -> list[Pack]:
    """The packs of these folders in directory order, less the disabled ones and those that the flags leave out."""
    return [Pack(path.resolve()) for folder in folders for path in _entries(Path(folder)) if _allowed(path, config)]


def _entries(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.name == "__pycache__" or path.name.endswith(".disabled") or path.name.startswith("."):
            continue
        if path.is_dir() or path.suffix == ".py":
            yield path


def _allowed(path: Path, config: Config) -> bool:
    return config.custom_nodes or path.name in config.custom_nodes_whitelist


def run_prestartup(packs: Iterable[Pack]) -> None:
    """Run each folder pack's `prestartup_script.py`, before torch is imported."""
    for pack in packs:
        script = pack.path / "prestartup_script.py"
        if not script.is_file():
            continue
        started = time.monotonic()
        try:
            spec = importlib.util.spec_from_file_location(f"{pack.module_name}.prestartup_script", script)
            assert spec is not None
            assert spec.loader is not None
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
        except Exception:
            log.exception("(PRESTARTUP FAILED) %s", pack.path.name)
        else:
            log.info("prestartup script of %s ran in %.1fs", pack.path.name, time.monotonic() - started)


def load_packs(packs: Iterable[Pack], registry: NodeRegistry) -> list[Loaded]:
    """Import the packs and register their nodes; names of nodes that exist now belong to the core and stay."""
    builtin = frozenset(registry.classes)
    loaded = [_load(pack, registry, builtin) for pack in packs]
    for one in loaded:
        if one.error is not None:
            log.warning("%6.1fs (IMPORT FAILED) %s: %s", one.seconds, one.pack.path.name, one.error)
        else:
            log.info("%6.1fs %s: %d nodes", one.seconds, one.pack.path.name, len(one.node_names))
    return loaded


def _load(pack: Pack, registry: NodeRegistry, builtin: frozenset[str]) -> Loaded:
    started = time.monotonic()
    try:
        module = _import(pack)
        names = _register(pack, module, registry, builtin)
        seeds = scan(pack.path).seeds
        if seeds:
            for name in names:
                registry.classes[name].USES_GLOBAL_RNG = True
        return Loaded(pack, time.monotonic() - started, None, names, seeds, _web_dirs(pack, module))
    except BaseException as error:  # a pack may also call sys.exit while it loads
        if isinstance(error, KeyboardInterrupt):
            raise
        sys.modules.pop(pack.module_name, None)
        log.exception("cannot load the custom nodes of %s", pack.path.name)
        return Loaded(pack, time.monotonic() - started, f"{type(error).__name__}: {error}")


def _import(pack: Pack) -> ModuleType:
    source = pack.path if pack.path.is_file() else pack.path / "__init__.py"
    if not source.is_file():
        raise ImportError("the folder has no __init__.py")
    spec = importlib.util.spec_from_file_location(pack.module_name, source)
    if spec is None or spec.loader is None:
        raise ImportError(f"{source.name} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[pack.module_name] = module
    spec.loader.exec_module(module)
    return module


def _register(pack: Pack, module: ModuleType, registry: NodeRegistry, builtin: frozenset[str]) -> tuple[str, ...]:
    source = f"custom_nodes.{pack.name}"
    classes = getattr(module, "NODE_CLASS_MAPPINGS", None)
    titles = getattr(module, "NODE_DISPLAY_NAME_MAPPINGS", None)
    if classes is None and hasattr(module, "comfy_entrypoint"):
        classes, titles = _from_entrypoint(module.comfy_entrypoint)
    if classes is None:
        raise ImportError("it has neither NODE_CLASS_MAPPINGS nor comfy_entrypoint")
    registry.add(classes, titles, module=source, protect=builtin)
    return tuple(name for name in classes if name not in builtin)


def _from_entrypoint(entrypoint: Any) -> tuple[dict[str, Any], dict[str, str]]:
    async def nodes() -> list[Any]:
        extension = entrypoint()
        if inspect.isawaitable(extension):
            extension = await extension
        return list(await extension.get_node_list())

    classes, titles = {}, {}
    loop = asyncio.new_event_loop()  # not asyncio.run: that would unset the loop which the server is going to use
    try:
        listed = loop.run_until_complete(nodes())
    finally:
        loop.close()
    for cls in listed:
        schema = cls.GET_SCHEMA()
        classes[schema.node_id] = cls
        if schema.display_name is not None:
            titles[schema.node_id] = schema.display_name
    return classes, titles


def _web_dirs(pack: Pack, module: ModuleType) -> dict[str, str]:
    """What the pack serves: its module's WEB_DIRECTORY, and the folder that its pyproject.toml names."""
    from comfy.web.extensions import toml_web_dir  # imports torch, which prestartup scripts must come before

    found = {}
    home = pack.home
    named = getattr(module, "WEB_DIRECTORY", None)
    if isinstance(named, str) and (home / named).is_dir():
        found[pack.name] = str((home / named).resolve())
    from_toml = toml_web_dir(str(pack.path)) if pack.path.is_dir() else None
    if from_toml is not None:
        found[from_toml[0]] = from_toml[1]
    return found


def check_devices(packs: Iterable[Pack]) -> int:
    """Log each hard-coded device in the packs' source with file:line, and the verdict. Returns how many there are."""
    log.info("🔍 Checking custom nodes compatibility…")
    count = packs_seen = 0
    for pack in packs:
        packs_seen += 1
        for finding in scan(pack.path).devices:
            count += 1
            where = finding.path.relative_to(pack.path.parent)
            log.warning("⚠️ %s:%d uses %s: it always means that one GPU, whichever lane runs the node", where, finding.line, finding.what)
    if count:
        log.warning("⚠️ %d hard-coded devices in custom nodes; let such packs ask comfy.model_management.get_torch_device()", count)
    else:
        log.info("✅ Custom nodes are compatible: %d packs, no hard-coded devices", packs_seen)
    return count
