"""`.onebit` files: safetensors, the graph as JSON under one metadata key. Atomic to write, strict to read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from itertools import chain
from pathlib import Path

import numpy as np

from onebit.errors import FileKindError, ProgramError
from onebit.program import checksums, header
from onebit.program.atomic import write_atomically
from onebit.program.errors import fail, shorten
from onebit.program.float_environment import default_float_environment
from onebit.program.graph import Constant, Graph
from onebit.program.schema import Outline, to_json
from onebit.program.tensors import Array
from onebit.program.verify import verify
from onebit.user_files import open_regular


@default_float_environment()
def save(program: Graph, path: str | os.PathLike[str]) -> None:
    """Verify a program and write it to `path`; the file there appears whole or not at all.

    A full disk or a kill leaves an older file as it was; see `write_atomically`. Equal programs give equal
    bytes. Raises ProgramError for a broken program, OSError where the system refuses to write.
    """
    verify(program)
    head, stored = _head(program)
    arrays = [program.constants[tensor.name].array for tensor in stored]
    checksum = checksums.take(chain([head], map(_bytes, arrays)))
    write_atomically(path, chain([checksums.put(head, checksum)], map(_bytes, arrays)))


@default_float_environment()
def read(path: str | os.PathLike[str]) -> Graph:
    """Read and verify a `.onebit` file. Its arrays are read-only and belong to the program.

    Raises ProgramError, naming the file and the rule, for anything but a valid program, and where the bytes
    are not those of the checksum; OSError where the file cannot be opened. Allocates the tensors once, plus
    what the header (4 MiB at most) needs.
    """
    target = _checked_path(path)
    with _naming(target), open_regular(target) as file:
        program = _read(file)
        verify(program)
    return program


def stored_checksum(path: str | os.PathLike[str]) -> str | None:
    """The checksum that a `.onebit` file carries; None for one of format version 1, which has none.

    Reads the header alone and does not compare: `read` does. Raises as `read` does.
    """
    target = _checked_path(path)
    with _naming(target), open_regular(target) as file:
        return _read_header(file)[1].checksum


def _checked_path(path: object) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"load takes the path of a .onebit file, a str or Path; got {type(path).__name__}")
    return Path(path)


@contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Errors name the file."""
    try:
        yield
    except FileKindError as error:
        raise ProgramError(f"{target}: file: kind: found {error.kind}, expected a regular file") from None
    except ProgramError as error:
        raise ProgramError(f"{target}: {error}") from None


def file_size(program: Graph) -> int:
    """Bytes of the file that `save` writes."""
    head, stored = _head(program)
    return len(head) + (stored[-1].end if stored else 0)


def _head(program: Graph) -> tuple[bytes, list[header.Stored]]:
    """All bytes before the tensors, with zeros for a checksum, and where the tensors go."""
    tensors = {name: (c.type.storage_dtype, c.type.storage_shape) for name, c in program.constants.items()}
    return header.build(tensors, to_json(program))


def _bytes(array: Array) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _read(file: BufferedReader) -> Graph:
    head, outline, stored = _read_header(file)
    arrays = {tensor.name: _array(file, tensor) for tensor in sorted(stored, key=lambda tensor: tensor.begin)}
    if outline.checksum is not None:
        found = checksums.take(
            chain([checksums.without(head, outline.checksum)], map(_bytes, arrays.values()))
        )
        if found != outline.checksum:
            rule, expected = "checksum of the bytes", f"{outline.checksum}: the file is damaged; get it again"
            fail("file", rule, found, expected)
    constants = {name: Constant(outline.constants[name], array) for name, array in arrays.items()}
    return Graph(outline.inputs, outline.outputs, outline.nodes, constants, outline.values, outline.metadata)


def _read_header(file: BufferedReader) -> tuple[bytes, Outline, list[header.Stored]]:
    """All bytes before the tensors, what they say of the graph, and where the tensors stand."""
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(header.LENGTH_BYTES)
    length = header.check_length(prefix, size)
    raw = file.read(length)
    if len(raw) != length:
        fail("header", "length", f"{len(raw)} bytes", f"{length}: the file is cut short")
    text, stored = header.parse(raw, size - header.LENGTH_BYTES - length)
    outline = Outline(text)
    _check_same_tensors(outline, stored)
    return prefix + raw, outline, stored


def _check_same_tensors(outline: Outline, stored: list[header.Stored]) -> None:
    """The graph's constants and the header's tensors are the same, in storage dtype and shape too."""
    present = {tensor.name: tensor for tensor in stored}
    for name, type_ in outline.constants.items():
        place = f"constant {shorten(name)}"
        if name not in present:
            fail(place, "every constant is stored", "no tensor of this name", "one")
        tensor = present[name]
        if tensor.dtype != type_.storage_dtype:
            fail(place, f"storage dtype of {type_}", tensor.dtype, type_.storage_dtype)
        if tensor.shape != type_.storage_shape:
            fail(place, f"storage shape of {type_}", tensor.shape, type_.storage_shape)
    for name in present:
        if name not in outline.constants:
            fail(
                f"tensor {shorten(name)}",
                "every tensor is a constant of the graph",
                "none of this name",
                "one",
            )


def _array(file: BufferedReader, tensor: header.Stored) -> Array:
    array = np.empty(tensor.shape, tensor.dtype)
    view = _bytes(array)
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])
        if not count:
            place = f"tensor {shorten(tensor.name)}"
            fail(place, "size", f"{done} bytes", f"{len(view)}: the file is cut short")
        done += count
    array.flags.writeable = False
    return array
