"""Files that are either the old one or the new one, whatever happens in between."""

# onebit.program.atomic does the like for .onebit files: neither room may import the other, and here
# torch.save writes, into a named file.

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from onebit.errors import TrainError


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill and read a temporary file beside `path`, sync it to disk, and rename it over `path`.

    A kill or a full disk at any moment leaves the old file whole. Raises `TrainError` when the disk refuses.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as a RuntimeError
        temporary.unlink(missing_ok=True)
        raise TrainError(
            f"cannot write {path}: {error}; the file that was there before is unchanged"
        ) from error


def write_text_atomically(path: Path, text: str) -> None:
    """`write_atomically` for text, in UTF-8."""
    write_atomically(path, lambda file: file.write(text.encode()))


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable (where the system lets a folder be opened: not on Windows)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
