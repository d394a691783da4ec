"""What custom nodes import as `folder_paths`: every name of the ecosystem, over the process's `comfy.folders.Folders`.

The directories and tables are attributes of the module that read from and write to the present Folders, so that they are
right before and after the server is configured. Facts: custom-nodes.md section 6.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

from comfy import folders as _folders
from comfy.errors import FileMissing, FolderUnknown
from comfy.folders import kinds as _kinds
from comfy.folders import models as _models
from comfy.folders.kinds import CLASSES as extension_mimetypes_cache
from comfy.folders.tables import WEIGHT_SUFFIXES as supported_pt_extensions
from comfy.folders.tables import map_legacy

__all__ = ["extension_mimetypes_cache", "map_legacy", "supported_pt_extensions"]

#: module attribute -> attribute of Folders
_LIVE = {
    "base_path": "base_path",
    "models_dir": "models_dir",
    "output_directory": "output_dir",
    "input_directory": "input_dir",
    "temp_directory": "temp_dir",
    "user_directory": "user_dir",
    "folder_names_and_paths": "names",
}

#: kept for packs that look at them; the listings keep themselves (comfy/folders/models.py)
filename_list_cache: dict[str, tuple[list[str], dict[str, float], float]] = {}


class CacheHelper:
    """A request-scoped cache of listings in the reference. Here listings need none: entering it changes nothing."""

    active = False
    cache: dict[str, Any] = {}

    def get(self, key: str, default: Any = None) -> Any:
        """Nothing is kept, so `default`."""
        return default

    def set(self, key: str, value: Any) -> None:
        """Keeps nothing."""

    def clear(self) -> None:
        """Nothing to drop."""

    def __enter__(self) -> CacheHelper:
        return self

    def __exit__(self, *exception: object) -> None:
        return None


cache_helper = CacheHelper()


def get_output_directory() -> str:
    """Where results go."""
    return _folders.current().output_dir


def get_input_directory() -> str:
    """Where uploads are."""
    return _folders.current().input_dir


def get_temp_directory() -> str:
    """Where previews are."""
    return _folders.current().temp_dir


def get_user_directory() -> str:
    """Where user data is."""
    return _folders.current().user_dir


def set_output_directory(output_dir: str) -> None:
    """Change it for the whole process."""
    _folders.current().output_dir = output_dir


def set_input_directory(input_dir: str) -> None:
    """Change it for the whole process."""
    _folders.current().input_dir = input_dir


def set_temp_directory(temp_dir: str) -> None:
    """Change it for the whole process."""
    _folders.current().temp_dir = temp_dir


def set_user_directory(user_dir: str) -> None:
    """Change it for the whole process."""
    _folders.current().user_dir = user_dir


def get_directory_by_type(type_name: str) -> str | None:
    """The folder of `output`, `temp` or `input`, else None."""
    return _folders.current().by_type(type_name)


def get_folder_paths(folder_name: str) -> list[str]:
    """A copy of the folders of a kind; KeyError when it is unknown."""
    return _folders.current().models.folders(folder_name)


def add_model_folder_path(folder_name: str, full_folder_path: str, is_default: bool = False) -> None:
    """Append a folder to a kind, or put it first; creates unknown kinds."""
    _folders.current().models.add(folder_name, full_folder_path, is_default)


def get_filename_list(folder_name: str) -> list[str]:
    """Sorted relative names of the files of a kind; KeyError when it is unknown."""
    return _folders.current().filename_list(folder_name)


def get_filename_list_(folder_name: str) -> tuple[list[str], dict[str, float], float]:
    """(names, folder -> mtime, time of the listing): the form that the reference keeps."""
    found = [(directory, mtime / 1e9) for folder in get_folder_paths(folder_name) for _, directory, mtime in _models.walk(folder)]
    return get_filename_list(folder_name), dict(found), time.perf_counter()


def cached_filename_list_(folder_name: str) -> tuple[list[str], dict[str, float], float] | None:
    """None: ask `get_filename_list`, which knows when to read again."""
    return None


def get_full_path(folder_name: str, filename: str) -> str | None:
    """Absolute path of an existing file of a kind, else None."""
    return _folders.current().full_path(folder_name, filename)


def get_full_path_or_raise(folder_name: str, filename: str) -> str:
    """As `get_full_path`; FileNotFoundError instead of None."""
    try:
        return _folders.current().full_path_or_raise(folder_name, filename)
    except (FileMissing, FolderUnknown) as error:
        raise FileNotFoundError(str(error)) from error


def annotated_filepath(name: str) -> tuple[str, str | None]:
    """`x.png [temp]` -> (`x.png`, the temp folder); None as the folder without annotation."""
    return _folders.current().annotated(name)


def get_annotated_filepath(name: str, default_dir: str | None = None) -> str:
    """Absolute path of an annotated name; PathOutside when it leaves its folder."""
    return _folders.current().annotated_path(name, default_dir)


def exists_annotated_filepath(name: str) -> bool:
    """Whether `get_annotated_filepath` names an existing file."""
    return _folders.current().annotated_exists(name)


def get_save_image_path(
    filename_prefix: str, output_dir: str, image_width: int = 0, image_height: int = 0
) -> tuple[str, str, int, str, str]:
    """(full folder, name, counter, subfolder, prefix); files are named `f"{name}_{counter:05}_.ext"`, counter + 1, …

    The counter is safe against other lanes for as long as the calling node runs.
    """
    return _folders.current().save_path(filename_prefix, output_dir, int(image_width), int(image_height))


def filter_files_content_types(files: Iterable[str], content_types: Iterable[str]) -> list[str]:
    """Those files whose class (image, video, audio, model) is one of `content_types`."""
    return _kinds.of_classes(files, content_types)


def filter_files_extensions(files: Iterable[str], extensions: Iterable[str]) -> list[str]:
    """Sorted files with one of the extensions; all when there are none."""
    return sorted(_models.by_suffix(files, extensions))


def recursive_search(directory: str, excluded_dir_names: Sequence[str] | None = None) -> tuple[list[str], dict[str, float]]:
    """(files relative to `directory`, folder -> mtime), links followed."""
    files: list[str] = []
    folders: dict[str, float] = {}
    for relative, path, mtime in _models.walk(directory, tuple(excluded_dir_names or ())):
        files += relative
        folders[path] = mtime / 1e9
    return files, folders


def get_input_subfolders() -> list[str]:
    """Sorted subfolders of the input folder, `/`-separated."""
    root = get_input_directory()
    relative = (os.path.relpath(path, root) for _, path, _ in _models.walk(root, skipped=()))
    return sorted(path.replace(os.sep, "/") for path in relative if path != os.curdir)


class _Module(ModuleType):
    """Reads and writes the live names through the present Folders."""

    def __getattr__(self, name: str) -> Any:
        if name in _LIVE:
            return getattr(_folders.current(), _LIVE[name])
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "folder_names_and_paths":
            present = _folders.current()
            present.names = present.models.names = value
        elif name in _LIVE:
            setattr(_folders.current(), _LIVE[name], value)
        else:
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Module
