"""How a user's file is opened to be read. A leaf: any room may import it, it imports `errors` alone."""

from __future__ import annotations

import os
import stat
from io import BufferedReader

from onebit.errors import FileKindError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """The file, open to be read in bytes; symbolic links are followed.

    A pipe is waited for by whoever opens it, and a device may give bytes without end or do something. So the
    path is looked at before it is opened; as it may become another file in between, it is opened without
    waiting, and what was opened is looked at again. Raises `FileKindError` for anything but a regular file,
    OSError where the system refuses.
    """
    check_regular(path)
    # O_NONBLOCK changes nothing about a regular file.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        _check(path, os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def check_regular(path: str | os.PathLike[str]) -> None:
    """The look alone, for a file that another library opens by its name. Raises as `open_regular` does."""
    _check(path, os.stat(path).st_mode)  # noqa: PTH116


def _check(path: str | os.PathLike[str], mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    raise FileKindError(os.fspath(path), next((name for holds, name in _KINDS if holds(mode)), "no file"))
