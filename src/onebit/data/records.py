"""Where the encoded images of a data set larger than memory lie: in files, or in groups of parquet rows.

Both are a list of groups: a file, or a row group, which is what a parquet file is read by. Nothing is read
before it is asked for but names and counts.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from onebit.errors import DataError

Encoded: TypeAlias = tuple[bytes | str, int]
"""An image file, its bytes or its path, and its label."""
Counts: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]

_TRIES = 5  # reading from the hub, at growing intervals of 1, 2, 4 and 8 seconds
_OPEN_FILES = 8


class Records(Protocol):
    """Encoded images in groups. Goes to other processes by pickling."""

    sizes: Counts
    """Images of each group."""
    fingerprint: int
    """A checksum of names and counts, the same wherever the data set lies."""

    def read(self, group: int) -> list[Encoded]:
        """The images of a group, in order."""
        ...

    def place(self, group: int, row: int) -> str:
        """What an error calls an image of a group."""
        ...


class FileRecords:
    """Image files below a folder; each is a group of its own."""

    def __init__(self, root: Path, paths: Sequence[Path], labels: Counts) -> None:
        # Bytes in one array: a million Path objects would be copied, page by page, into every worker.
        self._names = np.array([os.fsencode(path.relative_to(root)) for path in paths])
        self._root, self._labels = root, labels
        self.sizes = np.ones(len(paths), dtype=np.int64)
        self.fingerprint = zlib.crc32(labels.tobytes(), zlib.crc32(self._names.tobytes()))

    def read(self, group: int) -> list[Encoded]:
        """See `Records`."""
        return [(self.place(group, 0), int(self._labels[group]))]

    def place(self, group: int, row: int) -> str:
        """See `Records`."""
        return str(self._root / os.fsdecode(bytes(self._names[group])))


class ParquetRecords:
    """The rows of parquet files, which may lie in a folder or behind a URL that `fsspec` opens (hf://…).

    urls: the files, in order. columns: the names of the image and the label column; images are bare bytes or
    the hub's struct {bytes, path}. Raises `DataError` for a file that is no parquet.
    """

    def __init__(self, urls: Sequence[str], columns: tuple[str, str]) -> None:
        self._urls, self._columns = tuple(urls), columns
        self._footers = _footers(self._urls)
        self._files: dict[int, Any] = {}
        groups = [
            (file, group, footer.row_group(group).num_rows)
            for file, footer in enumerate(self._footers)
            for group in range(footer.num_row_groups)
        ]
        table = np.array(groups, dtype=np.int64).reshape(-1, 3)
        self._file_of, self._group_of, self.sizes = table[:, 0], table[:, 1], table[:, 2].copy()
        names = " ".join(url.rpartition("/")[2] for url in self._urls)
        self.fingerprint = zlib.crc32(table.tobytes(), zlib.crc32(names.encode()))

    def read(self, group: int) -> list[Encoded]:
        """See `Records`."""
        file, inside = int(self._file_of[group]), int(self._group_of[group])
        image, label = self._columns
        table = self._retried(file, lambda opened: opened.read_row_group(inside, columns=[image, label]))
        cells, labels = table.column(image).to_pylist(), table.column(label).to_pylist()
        records = []
        for row, (cell, number) in enumerate(zip(cells, labels, strict=True)):
            item = (cell.get("bytes") or cell.get("path")) if isinstance(cell, dict) else cell
            if item is None:
                raise DataError(f"{self.place(group, row)}: there is no image")
            if number is None:
                raise DataError(f"{self.place(group, row)}: there is no label")
            records.append((item, int(number)))
        return records

    def labels(self, group: int) -> list[int | None]:
        """The labels of a group, without its images."""
        file, inside = int(self._file_of[group]), int(self._group_of[group])
        table = self._retried(file, lambda opened: opened.read_row_group(inside, columns=[self._columns[1]]))
        found: list[int | None] = table.column(0).to_pylist()
        return found

    def place(self, group: int, row: int) -> str:
        """See `Records`."""
        file = self._file_of[group]
        first = int(self.sizes[:group][self._file_of[:group] == file].sum())
        return f"{self._urls[file]}, row {first + row}"

    def _retried(self, file: int, work: Any) -> Any:
        """`work` on an open file; what fails on a remote one is tried again with a new connection."""
        remote = _is_remote(self._urls[file])
        for attempt in range(_TRIES if remote else 1):
            if attempt:
                time.sleep(2 ** (attempt - 1))
            try:
                return work(self._open(file))
            except Exception as error:  # of many types: pyarrow's, fsspec's, and those of the hub's clients
                failure = error
                self._files.pop(file, None)
        lines = str(failure).splitlines() or [type(failure).__name__]
        raise DataError(f"cannot read {self._urls[file]}: {lines[0]}") from failure

    def _open(self, file: int) -> Any:
        if file not in self._files:
            while len(self._files) >= _OPEN_FILES:
                self._files.pop(next(iter(self._files)))
            self._files[file] = _parquet_file(self._urls[file], self._footers[file])
        return self._files[file]

    def __getstate__(self) -> dict[str, Any]:
        # Another process opens the files for itself: a shared descriptor has one position.
        return {**self.__dict__, "_files": {}}


def parquet_schema(url: str) -> Any:
    """The Arrow schema of a parquet file. Raises `DataError` if it is none."""
    return _footers([url])[0].schema.to_arrow_schema()


def _footers(urls: Sequence[str]) -> list[Any]:
    """The footers of parquet files, in order; of remote ones, many at once."""
    from concurrent.futures import ThreadPoolExecutor

    def footer(url: str) -> Any:
        try:
            return _parquet_file(url, None).metadata
        except Exception as error:  # see `_retried`
            lines = str(error).splitlines() or [type(error).__name__]
            raise DataError(f"cannot read {url} as a parquet file: {lines[0]}") from error

    if not any(map(_is_remote, urls)):
        return [footer(url) for url in urls]
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(footer, urls))


def _parquet_file(url: str, footer: Any) -> Any:
    """A parquet file, open; `footer` spares reading its end again."""
    import pyarrow.parquet  # type: ignore[import-untyped]

    if not _is_remote(url):
        return pyarrow.parquet.ParquetFile(url, metadata=footer)
    import fsspec  # type: ignore[import-untyped]

    opened = fsspec.open(url, "rb").open()
    return pyarrow.parquet.ParquetFile(opened, metadata=footer, pre_buffer=True)


def _is_remote(url: str) -> bool:
    return "://" in url
