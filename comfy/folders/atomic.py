"""Files that appear whole or not at all, and never over a file of somebody else."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets

from comfy.errors import ComfyError, FileNameInvalid, FileUnwritable

PART_PREFIX = ".part-"  #: of files that are being written; hidden, never listed
_NAME_AT_FAULT = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.EACCES}


def unwritable(error: OSError, name: str) -> ComfyError:
    """What the file system said about writing `name`, as one of our errors. `name` is relative: no server path is told."""
    kind = FileNameInvalid if error.errno in _NAME_AT_FAULT else FileUnwritable
    return kind(error.strerror or type(error).__name__, filename=name)


def make_folder(path: str, name: str) -> None:
    """Create `path` with its parents. Raises FileNameInvalid or FileUnwritable naming `name`."""
    try:
        os.makedirs(path, exist_ok=True)
    except FileExistsError:
        raise FileNameInvalid("A file stands where a folder is needed.", filename=name) from None
    except OSError as error:
        raise unwritable(error, name) from error


def write_new(path: str, data: bytes) -> None:
    """Write `data` to `path`, which must not exist: raises FileExistsError when it does, also when two threads or
    processes try at once (exactly one wins). Raises OSError of the file system, leaving nothing behind.
    """
    part = _write_part(path, data, durable=False)
    try:
        os.link(part, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _claim_and_replace(part, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)


def _claim_and_replace(part: str, path: str) -> None:
    """The way of file systems without hard links: claim the name with an empty file, then move over it."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    os.replace(part, path)


def write_replace(path: str, data: bytes, durable: bool = False) -> None:
    """Write `data` to `path`, replacing what is there in one step; `durable` waits until the bytes are on disk.

    Raises OSError of the file system; what was there before stays then.
    """
    part = _write_part(path, data, durable)
    try:
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


def _write_part(path: str, data: bytes, durable: bool) -> str:
    part = os.path.join(os.path.dirname(path), PART_PREFIX + secrets.token_hex(8))
    try:
        with open(part, "xb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        raise
    return part
