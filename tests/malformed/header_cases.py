"""Defects of the frame, of the safetensors header, and of the tensors against the graph."""

from __future__ import annotations

import json

import numpy as np

from malformed import forge
from malformed.forge import (
    Change,
    Tree,
    drop,
    framed,
    graph,
    header,
    put,
    with_graph,
    with_header,
    with_header_text,
)

CUT = "the file is cut short"


def move(h: Tree, name: str, by: int) -> None:
    h[name]["data_offsets"] = [offset + by for offset in h[name]["data_offsets"]]


def last_tensor(h: Tree) -> str:
    return max((n for n in h if n != "__metadata__"), key=lambda n: h[n]["data_offsets"][0])


def flip_padding(raw: bytes) -> bytes:
    h, _, data = forge.split(raw)
    at = len(raw) - len(data) + h["w0"]["data_offsets"][0] + 11  # top byte of the third word: channel 95
    return forge.signed(raw[:at] + bytes([raw[at] | 0x80]) + raw[at + 1 :])


def poke_float(name: str, value: float) -> Change:
    def change(raw: bytes) -> bytes:
        h, _, data = forge.split(raw)
        at = len(raw) - len(data) + h[name]["data_offsets"][0]
        return forge.signed(raw[:at] + np.float32(value).tobytes() + raw[at + 4 :])

    return change


def two_tensors_swap_ranges(h: Tree) -> None:
    h["t0"]["data_offsets"], h["w1"]["data_offsets"] = h["w1"]["data_offsets"], h["t0"]["data_offsets"]


def only_bytes(raw: bytes) -> Change:
    return lambda _: raw


def deep(text: str) -> Change:
    return only_bytes(framed(text.encode()))


CASES: dict[str, tuple[Change, str]] = {
    # the frame
    "empty file": (lambda raw: b"", "file: size: found 0 bytes, expected at least 8"),
    "7 bytes": (lambda raw: raw[:7], "file: size: found 7 bytes, expected at least 8"),
    "length only": (lambda raw: raw[:8], CUT),
    "cut in the header": (lambda raw: raw[:100], CUT),
    "cut at the end of the header": (
        lambda raw: raw[: 8 + int.from_bytes(raw[:8], "little")],
        "file: bytes after the header: found 0, expected",
    ),
    "cut in the data": (lambda raw: raw[:-1], CUT),
    "trailing byte": (lambda raw: raw + b"\0", "bytes follow the last tensor"),
    "two files in one": (lambda raw: raw + raw, "bytes follow the last tensor"),
    "header length 0": (lambda raw: framed(b"", raw, 0), "header: length: found 0 bytes, expected 2 to"),
    "header length 2^64 - 1": (
        lambda raw: framed(b"{}", raw, 2**64 - 1),
        "header: length: found 18446744073709551615 bytes, expected 2 to 4194304",
    ),
    "header length beyond the limit": (lambda raw: framed(b"{}" + b" " * 2**22), "expected 2 to 4194304"),
    "header length one too long": (
        lambda raw: framed(raw[8 : 8 + int.from_bytes(raw[:8], "little")], b"", len(raw)),
        CUT,
    ),
    "a zip file": (only_bytes(b"PK\x03\x04" + b"\0" * 200), "this is no .onebit file, or it is damaged"),
    "a pickle": (
        only_bytes(b"\x80\x04\x95" + b"\0" * 5 + b"cos\nsystem\n" * 20),
        "this is no .onebit file, or it is damaged",
    ),
    "all zeros": (only_bytes(bytes(4096)), "header: length: found 0 bytes"),
    # the header's JSON
    "leading space": (with_header_text(lambda t: " " + t), "header: first byte: found b' '"),
    "byte order mark": (with_header_text(lambda t: "\ufeff" + t), "header: first byte"),
    "not UTF-8": (
        lambda raw: framed(b'{"\xff\xfe":1}'),
        "header: encoding: found invalid start byte at byte 2, expected UTF-8",
    ),
    "a lone surrogate in UTF-8": (lambda raw: framed(b'{"\xed\xa0\x80":1}'), "header: encoding: found"),
    "not JSON": (lambda raw: framed(b"{not json}"), "header: JSON: found"),
    "JSON ends early": (lambda raw: framed(b'{"__metadata__":{'), "header: JSON: found"),
    "string ends early": (lambda raw: framed(b'{"__metadata__":"\\'), "header: JSON: found"),
    "two JSON texts": (with_header_text(lambda t: t.rstrip() + "{}"), "header: JSON: found Extra data"),
    "control character in a string": (
        lambda raw: framed(b'{"a\x01":1}'),
        "header: JSON: found Invalid control",
    ),
    "zero byte after the JSON": (
        with_header_text(lambda t: t.rstrip() + "\0"),
        "header: JSON: found Extra data",
    ),
    "tensor named twice": (
        with_header_text(lambda t: t.rstrip()[:-1] + ',"t0":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}'),
        "header: keys are unique: found 't0' twice",
    ),
    "field named twice": (
        with_header_text(lambda t: t.replace('"dtype":"I32"', '"dtype":"I32","dtype":"I32"')),
        "header: keys are unique: found 'dtype' twice",
    ),
    "metadata twice": (
        with_header_text(lambda t: t.rstrip()[:-1] + ',"__metadata__":{}}'),
        "keys are unique: found '__metadata__' twice",
    ),
    "nested 100,000 deep": (
        deep('{"a":' * 100_000 + "1" + "}" * 100_000),
        "header: depth of the JSON: found more",
    ),
    "lists nested without end": (
        deep('{"a":' + "[" * 2_000_000),
        "header: depth of the JSON: found more than 16",
    ),
    "a million lists": (
        deep('{"a":[' + "[]," * 1_000_000 + "[]]}"),
        "header: lists and objects: found 250001",
    ),
    "NaN in the header": (header(float("nan"), "t0", "shape", 0), "header: numbers are finite: found NaN"),
    "Infinity in the header": (header(float("inf"), "t0", "shape", 0), "numbers are finite: found Infinity"),
    "1e999 in the header": (
        with_header_text(lambda t: t.replace('"shape":[33]', '"shape":[1e999]', 1)),
        "header: size of a number: found 1e999, expected a finite number",
    ),
    "a number of 5,000 digits": (
        with_header_text(lambda t: t.replace('"shape":[33]', '"shape":[' + "9" * 5000 + "]", 1)),
        "header: size of a number: found 9999",
    ),
    # metadata and tensor entries
    "no metadata": (
        with_header(lambda h: drop(h, "__metadata__")),
        "header: __metadata__: found None, expected an",
    ),
    "metadata is a list": (header([], "__metadata__"), "header: __metadata__: found [], expected an object"),
    "metadata of another tool": (
        lambda raw: framed(b'{"__metadata__":{"format":"pt"}}'),
        "header: __metadata__: found ['format'], expected an object with the one key 'onebit'",
    ),
    "a second metadata key": (
        header("1", "__metadata__", "zz"),
        "found ['onebit', 'zz'], expected an object",
    ),
    "graph is no string": (
        lambda raw: framed(b'{"__metadata__":{"onebit":{}}}'),
        "header: __metadata__.onebit: found {}, expected a string of JSON",
    ),
    "no tensors": (
        lambda raw: framed(
            json.dumps({"__metadata__": {"onebit": json.dumps(forge.split(raw)[1])}}).encode()
        ),
        "every constant is stored",
    ),
    "entry is a number": (header(3, "t0"), "tensor 't0': fields: found 3, expected dtype, shape"),
    "entry without offsets": (
        with_header(lambda h: drop(h, "t0", "data_offsets")),
        "tensor 't0': fields: found",
    ),
    "entry with more": (
        header(1, "t0", "extra"),
        "tensor 't0': fields: found ['data_offsets', 'dtype', 'extra'",
    ),
    "unknown dtype": (header("Q4", "t0", "dtype"), "tensor 't0': dtype: found 'Q4', expected one of U32"),
    "dtype is a list": (header(["I32"], "t0", "dtype"), "tensor 't0': dtype: found ['I32'], expected one of"),
    "64-bit dtype": (header("I64", "t0", "dtype"), "tensor 't0': dtype: found 'I64'"),
    "shape is a number": (header(33, "t0", "shape"), "tensor 't0': shape: found 33, expected a list"),
    "shape of rank 1000": (header([1] * 1000, "t0", "shape"), "tensor 't0': shape: found rank 1000"),
    "shape with a bool": (header([True], "t0", "shape"), "each size of the shape: found True"),
    "shape with a float": (header([33.0], "t0", "shape"), "each size of the shape: found 33.0"),
    "shape with a string": (header(["33"], "t0", "shape"), "each size of the shape: found '33'"),
    "negative shape": (header([-33], "t0", "shape"), "each size of the shape: found -33"),
    "zero in a shape": (header([0], "t0", "shape"), "each size of the shape: found 0"),
    "shape overflows 64 bits": (
        header([2**31 - 1] * 8, "t0", "shape"),
        f"132 bytes, expected {(2**31 - 1) ** 8 * 4} bytes for its shape",
    ),
    "size beyond int32": (header([2**31], "t0", "shape"), "each size of the shape: found 2147483648"),
    "size beyond int64": (
        header([2**63], "t0", "shape"),
        "header: size of a number: found 9223372036854775808",
    ),
    "offsets negative": (
        header([-8, 124], "t0", "data_offsets"),
        "data_offsets: found [-8, 124], expected two",
    ),
    "offsets reversed": (
        header([264, 132], "t0", "data_offsets"),
        "data_offsets: found 264 to 132, -132 bytes",
    ),
    "one offset": (header([0], "t0", "data_offsets"), "data_offsets: found [0], expected two ints"),
    "offsets are bools": (
        header([False, True], "t0", "data_offsets"),
        "found [False, True], expected two ints",
    ),
    "offsets are floats": (
        header([0.0, 132.0], "t0", "data_offsets"),
        "found [0.0, 132.0], expected two ints",
    ),
    "offsets near 2^63": (
        header([2**63 - 133, 2**63 - 1], "t0", "data_offsets"),
        "tensors follow each other: found a gap",
    ),
    "offsets too wide": (
        with_header(lambda h: put(h, h["t0"]["data_offsets"][0] + 500, "t0", "data_offsets", 1)),
        "500 bytes, expected 132 bytes",
    ),
    "overlapping tensors": (
        with_header(lambda h: move(h, "t0", -4)),
        "tensor 't0': tensors follow each other: found an overlap: begin 28, expected 32",
    ),
    "a gap between tensors": (with_header(lambda h: move(h, "t0", 4)), "tensors follow each other: found"),
    "a gap before the first": (
        with_header(lambda h: [move(h, name, 4) for name in h if name != "__metadata__"]),
        "tensors follow each other: found a gap: begin 4, expected 0",
    ),
    "tensor past the end": (
        with_header(lambda h: move(h, last_tensor(h), 2**40)),
        "found a gap: begin 10995",
    ),
    "all tensors at one place": (
        with_header(lambda h: put(h, h["scale"]["data_offsets"], "shift", "data_offsets")),
        "found an overlap",
    ),
    # tensors against the graph
    "tensor not in the graph": (
        with_graph(lambda g: drop(g, "constants", "t0")),
        "tensor 't0': every tensor is a constant of the graph",
    ),
    "constant not stored": (
        graph({"dtype": "f32", "shape": [1]}, "constants", "ghost"),
        "constant 'ghost': every constant is stored: found no tensor of this name",
    ),
    "tensor renamed": (
        with_header(lambda h: put(h, h.pop("t0"), "t9")),
        "constant 't0': every constant is stored",
    ),
    "storage dtype": (header("F32", "t0", "dtype"), "constant 't0': storage dtype of i32[33]: found float32"),
    "storage shape": (
        header([3, 11], "t0", "shape"),
        "constant 't0': storage shape of i32[33]: found (3, 11), expected (33,)",
    ),
    "logical shape of bits": (
        graph([33, 97], "constants", "w0", "shape"),
        "storage shape of bits[33, 97]: found (33, 3), expected (33, 4)",
    ),
    "padding bits": (flip_padding, "constant 'w0': bits beyond channel 69 are zero"),
    "NaN in the data": (
        poke_float("scale", float("nan")),
        "constant 'scale': constants are finite: found nan",
    ),
    "infinity in the data": (poke_float("shift", -float("inf")), "constants are finite: found -inf"),
    "two tensors swapped": (
        with_header(two_tensors_swap_ranges),
        "24 bytes, expected 132 bytes for its shape",
    ),
}
