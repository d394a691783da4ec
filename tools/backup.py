"""Rollback sets of the program: `backup.py make`, `list`, `restore STAMP` (backup.sh and rollback.sh call it).

A set is the folder backups/<YYYYmmdd_HHMMSS>/: the root files as they are, so that `cp backups/<stamp>/*.py ./` works;
the packages in packages.tar.gz; manifest.json with a SHA-256 of every file and the commit; and backup_stamp.py, by which
main.py sees that root files of a set lie beside other packages (comfy/version_stamp.py). Models, packs, results and
settings are the operator's: no set holds them and no rollback touches them.

Standard library only and nothing of the tree: it must run in a tree that is broken. Exit status 1 when it could not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

MARK = "backup_stamp.py"
ARCHIVE = "packages.tar.gz"
MANIFEST = "manifest.json"
PACKAGES = ("comfy", "comfy_api", "comfy_execution", "comfy_extras")
FOLDERS = (*PACKAGES, "scripts", "tools")
ROOT_FILES = ("*.py", "*.sh", "*.conf", "requirements*.txt", "constraints.txt", "pyproject.toml", "test_workflow.json")
STAMP = re.compile(r"\d{8}_\d{6}")


class Refused(Exception):
    """Why nothing was done; the message is for the operator."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def root_files(root: Path) -> list[Path]:
    """The program's own files in the root; a mark of an earlier `cp` is not one."""
    found = {path for pattern in ROOT_FILES for path in root.glob(pattern) if path.is_file() and path.name != MARK}
    return sorted(found)


def folder_files(root: Path) -> list[Path]:
    """The files of the packages, compiled ones left out."""
    found = (path for folder in FOLDERS for path in (root / folder).rglob("*") if path.is_file())
    return sorted(path for path in found if "__pycache__" not in path.parts)


def packages_digest(checksums: dict[str, str]) -> str:
    """The digest that comfy/version_stamp.py makes of the same files. checksums: path -> SHA-256."""
    lines = sorted((name, sha) for name, sha in checksums.items() if name.split("/")[0] in PACKAGES)
    return sha256("".join(f"{sha}  {name}\n" for name, sha in lines).encode())


def commit_of(root: Path) -> str | None:
    """The commit of the tree, with `+` when files differ from it; None without git."""
    try:
        name = _git(root, "rev-parse", "HEAD")
        return name + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def free_stamp(backups: Path, now_s: float) -> str:
    """The time as a stamp; of a second that has a set already, the next one that has none."""
    while True:
        stamp = time.strftime("%Y%m%d_%H%M%S", time.localtime(now_s))
        if not (backups / stamp).exists():
            return stamp
        now_s += 1


def make(root: Path) -> str:
    """Write a set of the tree; returns its stamp. The set appears under its name when it is whole."""
    backups = root / "backups"
    backups.mkdir(exist_ok=True)
    stamp = free_stamp(backups, time.time())
    part = backups / f".{stamp}.{os.getpid()}.part"
    part.mkdir()
    try:
        _write_set(root, part, stamp)
        part.rename(backups / stamp)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return stamp


def _write_set(root: Path, part: Path, stamp: str) -> None:
    in_root, in_folders = root_files(root), folder_files(root)
    for path in in_root:
        shutil.copy2(path, part / path.name)
    with tarfile.open(part / ARCHIVE, "w:gz", compresslevel=6) as archive:
        for path in in_folders:
            archive.add(path, path.relative_to(root).as_posix(), recursive=False)
    packed = {path.relative_to(root).as_posix(): sha256(path.read_bytes()) for path in in_folders}
    digest = packages_digest(packed)
    mark = f'"""Root files of backup {stamp}: comfy/version_stamp.py reads this."""\n\nSTAMP = "{stamp}"\nPACKAGES = "{digest}"\n'
    (part / MARK).write_text(mark, encoding="utf-8")
    manifest = {
        "format": 1,
        "stamp": stamp,
        "commit": commit_of(root),
        "root": {path.name: sha256((part / path.name).read_bytes()) for path in [*in_root, part / MARK]},
        "folders": packed,
    }
    (part / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def stamps(root: Path) -> list[str]:
    """The sets that are there, oldest first."""
    return sorted(path.parent.name for path in root.glob(f"backups/*/{MANIFEST}") if STAMP.fullmatch(path.parent.name))


def read_set(root: Path, stamp: str) -> tuple[dict[str, Any], dict[str, tuple[bytes, int]]]:
    """Manifest and every file of the set by its path in the tree, with its mode; each checked. Raises Refused."""
    if not STAMP.fullmatch(stamp) or not (root / "backups" / stamp / MANIFEST).is_file():
        raise Refused(f"There is no set {stamp!r} in backups/. There are: {', '.join(stamps(root)) or 'none'}.")
    folder = root / "backups" / stamp
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != 1:
            raise Refused(f"The set {stamp} has format {manifest['format']}, which this program does not know.")
        files = {name: ((folder / name).read_bytes(), (folder / name).stat().st_mode & 0o777) for name in manifest["root"]}
        files |= dict(_packed(folder / ARCHIVE))
        expected = {**manifest["root"], **manifest["folders"]}
    except (OSError, ValueError, KeyError, TypeError, tarfile.TarError, EOFError) as error:
        raise Refused(f"The set {stamp} cannot be read: {error}. Nothing was changed.") from error
    wrong = [name for name in {**files, **expected} if name not in files or expected.get(name) != sha256(files[name][0])]
    wrong += [name for name in expected if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]
    if wrong:
        raise Refused(f"The set {stamp} is damaged: {', '.join(sorted(wrong)[:5])} do not match its manifest. Nothing was changed.")
    return manifest, files


def _packed(path: Path) -> Iterator[tuple[str, tuple[bytes, int]]]:
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is None:
                raise ValueError(f"{member.name} is no file")
            yield member.name, (content.read(), member.mode & 0o777)


def restore(root: Path, stamp: str) -> tuple[str, list[str]]:
    """Make the program that of the set. Returns the stamp of a set of what was there before, and the root files that
    are not in the set: they stay. Raises Refused with nothing changed, or OSError with the old folders back in place."""
    manifest, files = read_set(root, stamp)
    before = make(root)
    work = root / f".rollback.{os.getpid()}"
    work.mkdir()
    try:
        for name, (data, mode) in files.items():
            (work / "new" / name).parent.mkdir(parents=True, exist_ok=True)
            (work / "new" / name).write_bytes(data)
            (work / "new" / name).chmod(mode)
        _swap_folders(root, work)
        for name in manifest["root"]:
            os.replace(work / "new" / name, root / name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    (root / MARK).unlink(missing_ok=True)
    _verify(root, manifest, before)
    return before, [path.name for path in root_files(root) if path.name not in manifest["root"]]


def _swap_folders(root: Path, work: Path) -> None:
    """Put the new folders in the place of the old ones; those that the set does not have go. All of them or none."""
    (work / "old").mkdir()
    moved: list[str] = []
    try:
        for name in FOLDERS:
            moved.append(name)
            if (root / name).exists():
                (root / name).rename(work / "old" / name)
            if (work / "new" / name).exists():
                (work / "new" / name).rename(root / name)
    except OSError:
        for name in moved:
            if (work / "old" / name).exists():
                if (root / name).exists():
                    (root / name).rename(work / f"undone-{name}")
                (work / "old" / name).rename(root / name)
        raise


def _verify(root: Path, manifest: dict[str, Any], before: str) -> None:
    """Compare what lies there now with the manifest, file by file. Raises Refused."""
    expected = {**manifest["root"], **manifest["folders"]}
    del expected[MARK]
    there = {path.relative_to(root).as_posix() for path in folder_files(root)} | set(expected)
    wrong = [name for name in there if not (root / name).is_file() or expected.get(name) != sha256((root / name).read_bytes())]
    if wrong:
        raise Refused(
            f"After the restore these differ from the set: {', '.join(sorted(wrong)[:5])}. What was there before is set {before}."
        )


def _told(root: Path, names: Iterable[str]) -> Iterator[str]:
    for stamp in names:
        manifest = json.loads((root / "backups" / stamp / MANIFEST).read_text(encoding="utf-8"))
        yield f"{stamp}  commit {manifest['commit'] or 'unknown'}  {len(manifest['root']) + len(manifest['folders'])} files"


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Rollback sets of the program.")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent, help="the program's folder")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("make", help="write a set")
    commands.add_parser("list", help="the sets that are there")
    commands.add_parser("restore", help="make the program that of a set").add_argument("stamp")
    given = parser.parse_args(list(argv))
    root = given.root.resolve()
    try:
        if given.command == "make":
            stamp = make(root)
            print(f"backups/{stamp}\nBack to it: ./rollback.sh {stamp}")
        elif given.command == "list":
            print("\n".join(_told(root, stamps(root))) or "no sets in backups/")
        else:
            before, extra = restore(root, given.stamp)
            print(f"Restored backups/{given.stamp}; every file matches its manifest. What was there before: ./rollback.sh {before}")
            if extra:
                print(f"Not in the set, left as they are: {', '.join(extra)}")
            print("Start the server again to run it.")
    except (Refused, OSError) as error:
        print(f"❌ {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
