"""Files that appear whole or not at all."""

# onebit.train.files does the like for checkpoints: neither room may import the other, and torch.save writes
# through a file of its own.

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

_NO_UNNAMED_FILES = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT}


def write_atomically(path: str | os.PathLike[str], chunks: Iterable[bytes | memoryview]) -> None:
    """Write `chunks` to a new file that takes the name `path` only once it is whole and on the disk.

    A full disk, an exception or a kill leaves an older file at `path` as it was. On Linux the new file has no
    name while it is written, so that even a kill leaves nothing behind; elsewhere it is `.onebit-*.tmp` in
    the same folder, removed unless the process is killed. A symbolic link at `path` is followed and stays;
    permissions of a replaced file stay. Raises OSError, naming `path`, where the system refuses and where
    something other than a regular file stands there: taking the place of /dev/null would break the machine.
    """
    target = Path(os.path.realpath(path))
    try:
        _check_replaceable(target)
        _write(target, chunks)
    except OSError as error:
        if error.errno is None:
            raise
        # Names the user's file, not the ones used on the way; errno decides the subclass, as it did before.
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _check_replaceable(target: Path) -> None:
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if target.exists() and not target.is_file():
        raise FileExistsError(errno.EEXIST, "It is a device or a pipe, not a regular file")


def _write(target: Path, chunks: Iterable[bytes | memoryview]) -> None:
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    name = f".onebit-{secrets.token_hex(8)}.tmp"
    try:
        descriptor, named = _create(folder, name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                if target.exists():
                    os.fchmod(descriptor, stat.S_IMODE(target.stat().st_mode))
                os.fsync(descriptor)
                if not named:
                    # linkat() follows this link only if a folder descriptor is passed, which it then ignores.
                    os.link(f"/proc/self/fd/{descriptor}", name, src_dir_fd=folder, dst_dir_fd=folder)
                    named = True
            os.replace(name, target.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            if named:
                os.unlink(name, dir_fd=folder)
            raise
        os.fsync(folder)
    finally:
        os.close(folder)


def _create(folder: int, name: str) -> tuple[int, bool]:
    """A new file in `folder`, and whether it has a name yet."""
    unnamed = getattr(os, "O_TMPFILE", 0)
    if unnamed and Path("/proc/self/fd").is_dir():
        try:
            return os.open(".", unnamed | os.O_WRONLY, 0o666, dir_fd=folder), False
        except OSError as error:
            if error.errno not in _NO_UNNAMED_FILES:
                raise
    return os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666, dir_fd=folder), True
