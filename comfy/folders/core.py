"""Every folder that the server reads and writes, as one object. Facts: cli.md sections 2 to 4, files.md."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from comfy.config import PROGRAM_DIR, Config
from comfy.errors import BadRequest, ComfyError
from comfy.folders import extra_paths, saving, tables
from comfy.folders.atomic import make_folder
from comfy.folders.confine import check_name, confine, is_within
from comfy.folders.models import ModelFolders
from comfy.folders.saving import Reservation, SaveNames, SaveTarget
from comfy.folders.temp import TempFolder

log = logging.getLogger(__name__)

_ANNOTATION = re.compile(r" ?\[(input|output|temp)\]\Z")


class Folders:
    """The folders of one server. Paths are absolute strings, as packs expect them; they may be assigned while it runs.

    names     kind -> ([folders], {suffixes}): the object that packs know as `folder_names_and_paths`
    web_dirs  pack name -> folder served at /extensions/<pack>: the object that packs know as `nodes.EXTENSION_WEB_DIRS`
    Raises ConfigError for a file of extra model paths that cannot be read.
    """

    def __init__(self, config: Config, program_dir: str | os.PathLike[str] = PROGRAM_DIR) -> None:
        self.config = config
        self.base_path = os.path.abspath(config.base_dir)
        self.models_dir = os.path.join(self.base_path, "models")
        self.output_dir = os.path.abspath(config.output_dir)
        self.input_dir = os.path.abspath(config.input_dir)
        self.temp_dir = os.path.abspath(config.temp_dir)
        self.user_dir = os.path.abspath(config.user_dir)
        self.names = tables.default_names(self.base_path)
        self.web_dirs: dict[str, str] = {}
        self.models = ModelFolders(self.names)
        self.save_names = SaveNames()
        self._temp: TempFolder | None = None
        beside_program = Path(program_dir) / "extra_model_paths.yaml"
        if beside_program.is_file():
            extra_paths.load(beside_program, self.models)
        for path in config.extra_model_paths:
            extra_paths.load(path, self.models)
        for kind, folder in tables.OUTPUT_KINDS:
            self.models.add(kind, os.path.join(self.output_dir, folder))

    # -- life -----------------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Create what must be there and claim the temp folder, which is emptied unless another server uses it.

        Call it once this process is sure to serve. Raises FileUnwritable.
        """
        wanted = [self.user_dir, os.path.join(self.base_path, "custom_nodes"), self.temp_dir]
        if is_within(self.base_path, self.input_dir):
            wanted.append(self.input_dir)
        for path in wanted:
            make_folder(path, os.path.basename(path))
        if self._temp is None and self._temp_is_ours():
            self._temp = TempFolder(self.temp_dir)
            self._temp.claim()

    def close(self) -> None:
        """Give the temp folder up; the last server that uses it removes it."""
        if self._temp is not None:
            self._temp.release()
            self._temp = None

    def _temp_is_ours(self) -> bool:
        """Whether nothing but previews can lie in the temp folder: emptying must never take models or results along."""
        temp = os.path.realpath(self.temp_dir)
        kept = [self.base_path, self.models_dir, self.output_dir, self.input_dir, self.user_dir]
        kept += [folder for pair in self.names.values() for folder in pair[0]]
        inside = [path for path in kept if is_within(temp, os.path.realpath(path))]
        if inside:
            log.warning("temp folder %s holds %s and is never emptied", self.temp_dir, inside[0])
        return not inside

    # -- models ---------------------------------------------------------------------------------------------------------

    def filename_list(self, kind: str) -> list[str]:
        """Sorted relative names of the files of `kind`; raises FolderUnknown. See ModelFolders."""
        return self.models.filename_list(kind)

    def full_path(self, kind: str, name: str) -> str | None:
        """Absolute path of a file of `kind`, or None. See ModelFolders."""
        return self.models.full_path(kind, name)

    def full_path_or_raise(self, kind: str, name: str) -> str:
        """Absolute path of a file of `kind`; raises FolderUnknown, FileNameInvalid, FileMissing."""
        return self.models.full_path_or_raise(kind, name)

    # -- names from clients -----------------------------------------------------------------------------------------------

    def by_type(self, kind: str) -> str | None:
        """The folder that clients call `input`, `output` or `temp`; None for any other word."""
        return {"input": self.input_dir, "output": self.output_dir, "temp": self.temp_dir}.get(kind)

    def by_type_or_raise(self, kind: str) -> str:
        """As `by_type`; raises BadRequest for any other word."""
        folder = self.by_type(kind)
        if folder is None:
            raise BadRequest("The type must be input, output or temp.", field="type")
        return folder

    def annotated(self, name: str) -> tuple[str, str | None]:
        """`x.png [output]` -> (`x.png`, the output folder); without an annotation (name, None). Checks nothing."""
        match = _ANNOTATION.search(name)
        return (name[: match.start()], self.by_type(match[1])) if match else (name, None)

    def annotated_path(self, name: str, default_dir: str | None = None) -> str:
        """Absolute path of an annotated name, confined to its folder (the input folder, or `default_dir`, without one).

        The file need not exist. Raises FileNameInvalid, PathOutside.
        """
        bare, folder = self.annotated(check_name(name))
        return confine(folder or default_dir or self.input_dir, bare)

    def annotated_exists(self, name: str) -> bool:
        """Whether the annotated name is usable and names a regular file."""
        try:
            return os.path.isfile(self.annotated_path(name))
        except ComfyError:
            return False

    # -- results ----------------------------------------------------------------------------------------------------------

    def save_path(self, prefix: str, directory: str, width: int = 0, height: int = 0) -> tuple[str, str, int, str, str]:
        """(folder, name, counter, subfolder, prefix), for packs that name and count on their own; creates the folder.

        No other lane gets a number near `counter` while the calling node runs. Raises FileNameInvalid, PathOutside,
        FileUnwritable.
        """
        place = self.save_target(prefix, directory, width, height)
        counter = self.save_names.first_for_pack(place.folder, place.name)
        return place.folder, place.name, counter, place.subfolder, place.prefix

    def save_target(self, prefix: str, directory: str | None = None, width: int = 0, height: int = 0) -> SaveTarget:
        """Where files of `prefix` go, below `directory` (the output folder); write with its `write`. Raises as `save_path`."""
        return saving.target(self.save_names, prefix, directory or self.output_dir, width, height)

    def reserve(self, folder: str, name: str, count: int = 1) -> Reservation:
        """`count` consecutive numbers of `name` in `folder`, for the length of a `with` block; see SaveNames."""
        return self.save_names.reserve(folder, name, count)
