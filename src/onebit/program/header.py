"""The safetensors header of a `.onebit` file: written deterministically, read with suspicion.

A safetensors file is: 8 bytes, the header's length N (little-endian); N bytes of JSON, name →
{"dtype", "shape", "data_offsets": [begin, end]} plus "__metadata__"; then the tensors' bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, prod
from typing import Any, NoReturn

import numpy as np

from onebit.errors import ProgramError
from onebit.program import limits
from onebit.program.errors import fail, shorten

METADATA = "__metadata__"
GRAPH_KEY = "onebit"
LENGTH_BYTES = 8
ALIGNMENT = 64  # of the first tensor's byte in the file; safetensors itself asks for 8

_DTYPES = {
    name: np.dtype(code)
    for name, code in (("U32", "<u4"), ("I32", "<i4"), ("F32", "<f4"), ("U8", "u1"), ("I8", "i1"))
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_FIELDS = {"dtype", "shape", "data_offsets"}
# Strings (a broken one runs to the end of the text, so the scan stays linear) and brackets.
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*+\\?(?:"|\Z)|[\[{]|[\]}]', re.DOTALL)


@dataclass(frozen=True)
class Stored:
    """One tensor as the file holds it; `begin` and `end` are byte offsets after the header."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int
    end: int


def build(
    tensors: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]], graph: str
) -> tuple[bytes, list[Stored]]:
    """Length and header of a file that holds these tensors and this graph, and where each tensor goes.

    Tensors stand by falling item size, then by name, so that each is aligned and equal programs give equal
    bytes. Spaces after the JSON align the data.
    """
    stored: list[Stored] = []
    offset = 0
    for name, (dtype, shape) in sorted(tensors.items(), key=lambda item: (-item[1][0].itemsize, item[0])):
        end = offset + prod(shape) * dtype.itemsize
        stored.append(Stored(name, dtype, shape, offset, end))
        offset = end
    table: dict[str, Any] = {METADATA: {GRAPH_KEY: graph}}
    for tensor in stored:
        table[tensor.name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [tensor.begin, tensor.end],
        }
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")
    text += b" " * (-(LENGTH_BYTES + len(text)) % ALIGNMENT)
    if len(text) > limits.MAX_HEADER_BYTES:
        raise ProgramError(
            f"header: size: found {len(text)} bytes, expected at most {limits.MAX_HEADER_BYTES}"
        )
    return len(text).to_bytes(LENGTH_BYTES, "little") + text, stored


def check_length(prefix: bytes, file_size: int) -> int:
    """The header's length, from the first 8 bytes of a file of this size."""
    if len(prefix) < LENGTH_BYTES:
        raise ProgramError(
            f"file: size: found {file_size} bytes, expected at least {LENGTH_BYTES}: it is cut short"
        )
    length = int.from_bytes(prefix, "little")
    if not 2 <= length <= limits.MAX_HEADER_BYTES:
        raise ProgramError(
            f"header: length: found {length} bytes, expected 2 to {limits.MAX_HEADER_BYTES}: "
            "this is no .onebit file, or it is damaged"
        )
    if LENGTH_BYTES + length > file_size:
        raise ProgramError(
            f"header: length: found {length} bytes in a file of {file_size}, "
            "expected it to fit: the file is cut short"
        )
    return length


def parse(raw: bytes, data_size: int) -> tuple[str, list[Stored]]:
    """Check a whole header against the bytes that follow it; returns the graph's JSON and the tensors."""
    if raw[:1] != b"{":
        raise ProgramError(f"header: first byte: found {raw[:1]!r}, expected b'{{'")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProgramError(
            f"header: encoding: found {error.reason} at byte {error.start}, expected UTF-8"
        ) from None
    table = parse_json("header", text)
    if not isinstance(table, dict):
        fail("header", "JSON", shorten(table), "an object")
    metadata = table.pop(METADATA, None)
    if not isinstance(metadata, dict) or list(metadata) != [GRAPH_KEY]:
        found = sorted(metadata) if isinstance(metadata, dict) else metadata
        fail("header", METADATA, shorten(found), f"an object with the one key {GRAPH_KEY!r}")
    graph = metadata[GRAPH_KEY]
    if not isinstance(graph, str):
        fail("header", f"{METADATA}.{GRAPH_KEY}", shorten(graph), "a string of JSON")
    if len(table) > limits.MAX_TENSORS:
        fail("header", "number of tensors", len(table), f"at most {limits.MAX_TENSORS}")
    tensors = [_tensor(name, entry) for name, entry in table.items()]
    _check_layout(tensors, data_size)
    return graph, tensors


def parse_json(place: str, text: str) -> Any:
    """Strict JSON: ProgramError for duplicate keys, NaN, infinities, huge numbers or deep nesting."""
    _check_nesting(place, text)

    def pairs(items: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(items)
        if len(table) != len(items):
            seen: set[str] = set()
            twice = next(key for key, _ in items if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            fail(place, "keys are unique", f"{shorten(twice)} twice", "once")
        return table

    def integer(digits: str) -> int:
        if len(digits) > 20 or abs(int(digits)) > limits.MAX_INTEGER:
            fail(place, "size of a number", digits[:40], f"at most {limits.MAX_INTEGER} in magnitude")
        return int(digits)

    def number(digits: str) -> float:
        if not isfinite(value := float(digits)):
            fail(place, "size of a number", digits[:40], "a finite number")
        return value

    def constant(name: str) -> NoReturn:
        fail(place, "numbers are finite", name, "JSON numbers")

    try:
        return json.loads(
            text, object_pairs_hook=pairs, parse_int=integer, parse_float=number, parse_constant=constant
        )
    except json.JSONDecodeError as error:
        raise ProgramError(
            f"{place}: JSON: found {error.msg} at character {error.pos}, expected JSON"
        ) from None


def _check_nesting(place: str, text: str) -> None:
    """Depth and number of objects and lists, before the JSON parser recurses or allocates."""
    depth = containers = 0
    for token in _TOKENS.finditer(text):
        first = text[token.start()]
        if first in "[{":
            depth += 1
            containers += 1
            if depth > limits.MAX_JSON_DEPTH:
                fail(place, "depth of the JSON", f"more than {depth - 1}", f"at most {limits.MAX_JSON_DEPTH}")
            if containers > limits.MAX_JSON_CONTAINERS:
                fail(
                    place,
                    "lists and objects",
                    f"{containers} or more",
                    f"at most {limits.MAX_JSON_CONTAINERS}",
                )
        elif first in "]}":
            depth -= 1


def _tensor(name: str, entry: Any) -> Stored:
    place = f"tensor {shorten(name)}"
    if not isinstance(entry, dict) or set(entry) != _FIELDS:
        found = sorted(entry) if isinstance(entry, dict) else entry
        fail(place, "fields", shorten(found), "dtype, shape, data_offsets")
    dtype_name, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    dtype = _DTYPES.get(dtype_name) if isinstance(dtype_name, str) else None
    if dtype is None:
        fail(place, "dtype", shorten(dtype_name), f"one of {', '.join(_DTYPES)}")
    if not isinstance(shape, list) or len(shape) > limits.MAX_RANK:
        found = f"rank {len(shape)}" if isinstance(shape, list) else shorten(shape)
        fail(place, "shape", found, f"a list of at most {limits.MAX_RANK} sizes")
    for size in shape:
        if type(size) is not int or not 1 <= size <= limits.MAX_DIMENSION:
            fail(place, "each size of the shape", shorten(size), f"an int from 1 to {limits.MAX_DIMENSION}")
    whole = (
        isinstance(offsets, list) and len(offsets) == 2 and all(type(o) is int and o >= 0 for o in offsets)
    )
    if not whole:
        fail(place, "data_offsets", shorten(offsets), "two ints >= 0")
    begin, end = offsets
    size = prod(shape) * dtype.itemsize
    if end - begin != size:
        fail(
            place,
            "data_offsets",
            f"{begin} to {end}, {end - begin} bytes",
            f"{size} bytes for its shape and dtype",
        )
    return Stored(name, dtype, tuple(shape), begin, end)


def _check_layout(tensors: Sequence[Stored], data_size: int) -> None:
    position = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.begin):
        if tensor.begin != position:
            what = "an overlap" if tensor.begin < position else "a gap"
            rule = "tensors follow each other"
            fail(f"tensor {shorten(tensor.name)}", rule, f"{what}: begin {tensor.begin}", f"{position}")
        if tensor.begin % tensor.dtype.itemsize:
            rule = "alignment"
            fail(
                f"tensor {shorten(tensor.name)}",
                rule,
                f"begin {tensor.begin}",
                f"a multiple of {tensor.dtype.itemsize}",
            )
        position = tensor.end
    if position != data_size:
        what = "the file is cut short" if position > data_size else "bytes follow the last tensor"
        raise ProgramError(f"file: bytes after the header: found {data_size}, expected {position}: {what}")
