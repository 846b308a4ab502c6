"""The graph of a Program as JSON: written in format version 2, checked field by field on the way in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from onebit.errors import ProgramError
from onebit.program import checksums, limits
from onebit.program.errors import fail, shorten
from onebit.program.graph import Graph, Node
from onebit.program.header import parse_json
from onebit.program.tensors import Attr, DType, TensorType
from onebit.program.verify import check_type

FORMAT = "onebit"
FORMAT_VERSION = 2
_FIELDS = ("format", "format_version", "inputs", "outputs", "constants", "nodes", "metadata")


def to_json(program: Graph) -> str:
    """The graph of a verified program, zeros for a checksum; equal programs give equal text."""
    graph = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "checksum": checksums.PLACEHOLDER,
        "inputs": [{"name": name, **_type_out(program.values[name])} for name in program.inputs],
        "outputs": list(program.outputs),
        "constants": {name: _type_out(program.constants[name].type) for name in sorted(program.constants)},
        "nodes": [_node_out(node, program.values[node.output]) for node in program.nodes],
        "metadata": dict(sorted(program.metadata.items())),
    }
    return json.dumps(graph, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _type_out(type_: TensorType) -> dict[str, Any]:
    return {"dtype": type_.dtype.value, "shape": list(type_.shape)}


def _node_out(node: Node, type_: TensorType) -> dict[str, Any]:
    attrs = {
        name: list(value) if isinstance(value, tuple) else value for name, value in sorted(node.attrs.items())
    }
    return {
        "op": node.op,
        "version": node.version,
        "inputs": list(node.inputs),
        "output": node.output,
        **_type_out(type_),
        "attrs": attrs,
        "layer": node.layer,
    }


class Outline:
    """What the JSON holds: a Program whose constants are types still without arrays, and the checksum."""

    def __init__(self, text: str) -> None:
        """Read and check the JSON; raises ProgramError naming the field."""
        raw = parse_json("graph", text)
        version = _version(raw)
        graph = _object("graph", raw, *_FIELDS, *(["checksum"] if version >= 2 else []))
        self.checksum = _checksum(graph["checksum"]) if version >= 2 else None
        self.values: dict[str, TensorType] = {}
        self.inputs = tuple(self._input(i, item) for i, item in enumerate(_list("inputs", graph["inputs"])))
        self.outputs = tuple(
            _text(f"outputs[{i}]", item) for i, item in enumerate(_list("outputs", graph["outputs"]))
        )
        self.constants = {
            name: _type(
                f"constants.{shorten(name)}",
                _object(f"constants.{shorten(name)}", item, "dtype", "shape"),
                True,
            )
            for name, item in _mapping("constants", graph["constants"]).items()
        }
        nodes = _list("nodes", graph["nodes"])
        if len(nodes) > limits.MAX_NODES:
            _fail("nodes", "their number", len(nodes), f"at most {limits.MAX_NODES}")
        self.nodes = tuple(self._node(i, item) for i, item in enumerate(nodes))
        self.metadata = {
            key: _text_or_list(f"metadata.{shorten(key)}", item)
            for key, item in _mapping("metadata", graph["metadata"]).items()
        }

    def _input(self, index: int, raw: Any) -> str:
        place = f"inputs[{index}]"
        item = _object(place, raw, "name", "dtype", "shape")
        name = _text(f"{place}.name", item["name"])
        self._declare(place, name, _type(place, item, False))
        return name

    def _node(self, index: int, raw: Any) -> Node:
        place = f"nodes[{index}]"
        item = _object(place, raw, "op", "version", "inputs", "output", "dtype", "shape", "attrs", "layer")
        output = _text(f"{place}.output", item["output"])
        if type(item["version"]) is not int:
            _fail(f"{place}.version", "type", item["version"], "an int")
        node = Node(
            op=_text(f"{place}.op", item["op"]),
            inputs=tuple(
                _text(f"{place}.inputs[{i}]", name)
                for i, name in enumerate(_list(f"{place}.inputs", item["inputs"]))
            ),
            output=output,
            attrs={
                name: _attr(f"{place}.attrs.{shorten(name)}", value)
                for name, value in _mapping(f"{place}.attrs", item["attrs"]).items()
            },
            layer=_text(f"{place}.layer", item["layer"]),
            version=item["version"],
        )
        self._declare(place, output, _type(place, item, False))
        return node

    def _declare(self, place: str, name: str, type_: TensorType) -> None:
        if name in self.values:
            _fail(place, "names are unique", name, "one not taken yet")
        self.values[name] = type_


def _version(raw: Any) -> int:
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else raw
        _fail("graph", "format", found, repr(FORMAT))
    version = raw.get("format_version")
    if type(version) is not int or version < 1:
        _fail("graph", "format_version", version, "an int >= 1")
    if version > FORMAT_VERSION:
        expected = f"at most {FORMAT_VERSION}: a newer onebit wrote this file, upgrade onebit to read it"
        _fail("graph", "format_version", version, expected)
    return version


def _checksum(raw: Any) -> str:
    if not isinstance(raw, str) or not checksums.is_checksum(raw):
        _fail("graph.checksum", "form", raw, "8 hexadecimal digits, in small letters")
    return raw


def _fail(place: str, rule: str, found: object, expected: str) -> NoReturn:
    fail(place, rule, shorten(found), expected)


def _object(place: str, raw: Any, *fields: str) -> Mapping[str, Any]:
    item = _mapping(place, raw)
    if set(item) != set(fields):
        missing = ", ".join(name for name in fields if name not in item)
        extra = ", ".join(shorten(name) for name in sorted(set(item) - set(fields))[:4])
        found = "; ".join(
            part for part in (missing and f"no {missing}", extra and f"unknown {extra}") if part
        )
        raise ProgramError(f"{place}: fields: found {found}, expected exactly {', '.join(fields)}")
    return item


def _mapping(place: str, raw: Any) -> Mapping[str, Any]:
    if not isinstance(raw, dict):
        _fail(place, "type", raw, "an object")
    return raw


def _list(place: str, raw: Any) -> list[Any]:
    if not isinstance(raw, list):
        _fail(place, "type", raw, "a list")
    return raw


def _text(place: str, raw: Any) -> str:
    if not isinstance(raw, str):
        _fail(place, "type", raw, "a string")
    return raw


def _text_or_list(place: str, raw: Any) -> str | list[str]:
    if isinstance(raw, list):
        return [_text(f"{place}[{i}]", item) for i, item in enumerate(raw)]
    return _text(place, raw)


def _attr(place: str, raw: Any) -> Attr:
    if isinstance(raw, list) and all(type(size) is int for size in raw):
        return tuple(raw)
    if type(raw) is int or type(raw) is float or isinstance(raw, str):
        return raw
    return _fail(place, "type", raw, "a number, a string or a list of ints")


def _type(place: str, item: Mapping[str, Any], constant: bool) -> TensorType:
    dtype, shape = item["dtype"], _list(f"{place}.shape", item["shape"])
    if not isinstance(dtype, str) or dtype not in {known.value for known in DType}:
        _fail(f"{place}.dtype", "dtype", dtype, f"one of {', '.join(known.value for known in DType)}")
    type_ = TensorType(DType(dtype), tuple(shape))
    check_type(place, type_, constant)
    return type_
