"""Makes files that are almost Program files: valid parts put together by hand, in any order and size."""

from __future__ import annotations

import copy
import json
import re
import zlib
from collections.abc import Callable
from typing import Any

from onebit.program import Program, save
from program_samples import bytes_mlp, conv_zoo

Tree = dict[str, Any]
Change = Callable[[bytes], bytes]


def whole(program: Program, folder: Any) -> bytes:
    """The bytes that `save` writes."""
    path = folder / "whole"
    save(program, path)
    return bytes(path.read_bytes())


def split(raw: bytes) -> tuple[Tree, Tree, bytes]:
    """A valid file as its header (without the graph), its graph and its data."""
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    graph = json.loads(header["__metadata__"]["onebit"])
    return header, graph, raw[8 + length :]


def framed(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """Length, header and data, with the true length unless another is given."""
    size = len(header) if length is None else length
    return size.to_bytes(8, "little") + header + data


def joined(header: Tree | str, graph: Tree | str, data: bytes) -> bytes:
    """The inverse of `split`; a str stands as it is."""
    if isinstance(header, dict):
        header = copy.deepcopy(header)
        if isinstance(header.get("__metadata__"), dict) and "onebit" in header["__metadata__"]:
            header["__metadata__"]["onebit"] = graph if isinstance(graph, str) else json.dumps(graph)
        header = json.dumps(header)
    return signed(framed(header.encode("utf-8", "surrogatepass"), data))


def signed(raw: bytes) -> bytes:
    """The file with its true checksum, where it has one: the first `"checksum": "…"` of the graph."""
    found = re.search(rb'\\"checksum\\": ?\\"([0-9a-f]{8})\\"', raw)
    if not found:
        return raw
    before, after = raw[: found.start(1)], raw[found.end(1) :]
    return before + b"%08x" % zlib.crc32(before + b"00000000" + after) + after


def with_graph(edit: Callable[[Tree], Any]) -> Change:
    """A change of the graph alone."""

    def change(raw: bytes) -> bytes:
        header, graph, data = split(raw)
        edit(graph)
        return joined(header, graph, data)

    return change


def with_graph_text(edit: Callable[[str], str]) -> Change:
    """A change of the graph's JSON text."""

    def change(raw: bytes) -> bytes:
        header, graph, data = split(raw)
        return joined(header, edit(json.dumps(graph)), data)

    return change


def with_header(edit: Callable[[Tree], Any]) -> Change:
    """A change of the safetensors header alone."""

    def change(raw: bytes) -> bytes:
        header, graph, data = split(raw)
        edit(header)
        return joined(header, graph, data)

    return change


def with_header_text(edit: Callable[[str], str]) -> Change:
    """A change of the header's JSON text."""

    def change(raw: bytes) -> bytes:
        length = int.from_bytes(raw[:8], "little")
        return framed(edit(raw[8 : 8 + length].decode()).encode(), raw[8 + length :])

    return change


def put(tree: Tree, value: Any, *path: Any) -> None:
    """tree[path[0]][path[1]]… = value."""
    for key in path[:-1]:
        tree = tree[key]
    tree[path[-1]] = value


def drop(tree: Tree, *path: Any) -> None:
    """Delete tree[path[0]][path[1]]…"""
    for key in path[:-1]:
        tree = tree[key]
    del tree[path[-1]]


def graph(value: Any, *path: Any) -> Change:
    """One field of the graph gets another value."""
    return with_graph(lambda g: put(g, value, *path))


def header(value: Any, *path: Any) -> Change:
    """One field of the header gets another value."""
    return with_header(lambda h: put(h, value, *path))


def base() -> Program:
    """The program that the named cases break."""
    return bytes_mlp(70, 33, 3)


def conv_base() -> Program:
    """The program that the cases of convolutional networks break."""
    return conv_zoo(5)
