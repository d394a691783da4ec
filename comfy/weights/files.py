"""What is known about a weight file before any of its tensors is read."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from comfy.errors import WeightFileInvalid, WeightFileMissing


@dataclass(frozen=True)
class FileIdentity:
    """One state of one file: a file that was replaced or rewritten has another identity.

    path is absolute, with symbolic links kept (their targets often have names without a suffix); size in bytes.
    """

    path: str
    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> FileIdentity:
        """Ask the file system. Raises WeightFileMissing, or WeightFileInvalid for what is not a regular file."""
        absolute = os.path.abspath(os.fspath(path))
        try:
            found = os.stat(absolute)
        except (FileNotFoundError, NotADirectoryError):
            raise WeightFileMissing(file=os.path.basename(absolute)) from None
        except (OSError, ValueError) as error:  # ValueError: a null byte in the name
            raise WeightFileInvalid("It cannot be opened.", file=os.path.basename(absolute), reason=_reason(error)) from error
        return cls.from_stat(absolute, found)

    @classmethod
    def from_stat(cls, path: str, found: os.stat_result) -> FileIdentity:
        """The identity of an open file, from `os.fstat`. Raises WeightFileInvalid for what is not a regular file."""
        if not stat.S_ISREG(found.st_mode):
            raise WeightFileInvalid("It is not a regular file.", file=os.path.basename(path))
        return cls(path, found.st_size, found.st_mtime_ns, found.st_ino)

    @property
    def name(self) -> str:
        """The file's name without its folders, as errors and log lines show it."""
        return os.path.basename(self.path)


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as it lies in its file.

    start   absolute offset of its bytes in the file, row-major and little-endian; -1 when the bytes cannot be read from
            one place of the file (pickles of the old layout, strided tensors)
    nbytes  bytes of the dense tensor
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    nbytes: int


@dataclass(frozen=True)
class FileIndex:
    """Names, dtypes, shapes and places of every tensor of one file, in the file's order."""

    identity: FileIdentity
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str] = field(default_factory=dict)


def open_file(identity: FileIdentity) -> int:
    """A read-only descriptor of exactly the file that `identity` names; the caller closes it.

    Raises WeightFileMissing when the path is gone, WeightFileInvalid when another file is there now.
    """
    try:
        descriptor = os.open(identity.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    except (FileNotFoundError, NotADirectoryError):
        raise WeightFileMissing(file=identity.name) from None
    except (OSError, ValueError) as error:
        raise WeightFileInvalid("It cannot be opened.", file=identity.name, reason=_reason(error)) from error
    try:
        expect_unchanged(descriptor, identity)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def expect_unchanged(descriptor: int, identity: FileIdentity) -> None:
    """Raise WeightFileInvalid when the open file is not, or no longer, what `identity` says."""
    now = FileIdentity.from_stat(identity.path, os.fstat(descriptor))
    if now != identity:
        raise WeightFileInvalid(
            "It was replaced or is being written; run the prompt again.", file=identity.name, size=now.size, expected_size=identity.size
        )


def _reason(error: Exception) -> str:
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
