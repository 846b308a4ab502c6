"""An ONNX model while it is written: nodes, constants stored once, and packed ±1 weights."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from importlib import import_module
from typing import Any

import numpy as np

from onebit import __version__
from onebit.errors import ExportError
from onebit.program import DType, Program
from onebit.program.tensors import Array

MIN_OPSET = 13
MAX_OPSET = 21  # of onnx 1.16, the oldest that the extra allows
MAX_BYTES = 2**31 - 1  # of a protobuf message


_ELEMENT = {DType.BITS: "INT8", DType.I8: "INT8", DType.U8: "UINT8", DType.I32: "INT32", DType.F32: "FLOAT"}


def import_onnx() -> Any:
    """The package `onnx`; ExportError says how to install it."""
    try:
        return import_module("onnx")
    except ModuleNotFoundError as error:
        raise ExportError(
            "ONNX files need the package 'onnx', which is not installed: run pip install 'onebit[onnx]'"
        ) from error


def check_opset(opset: int) -> None:
    """Raise ExportError for an opset that is not written here, or where the package `onnx` is missing."""
    if type(opset) is not int or not MIN_OPSET <= opset <= MAX_OPSET:
        raise ExportError(f"opset {opset!r} is not written here; {MIN_OPSET} to {MAX_OPSET} are")
    import_onnx()


class ModelBuilder:
    """Collects the nodes of one model. Names of the Program's values are taken from the start."""

    def __init__(self, program: Program, opset: int) -> None:
        self.onnx = import_onnx()
        self.program = program
        self.opset = opset
        self._nodes: list[Any] = []
        self._initializers: list[Any] = []
        self._names = set(program.values)
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._derived: dict[tuple[object, ...], str] = {}
        self._counts: Counter[str] = Counter()
        self._layer = ""

    def begin(self, layer: str) -> None:
        """The nodes that follow come from this layer."""
        self._layer = layer

    def name(self, wanted: str = "") -> str:
        """A name that nothing has yet: `wanted`, or one like it."""
        made, count = wanted or f"v{len(self._names)}", 0
        while made in self._names or not made:
            count += 1
            made = f"{wanted}.{count}"
        self._names.add(made)
        return made

    def node(self, kind: str, inputs: Iterable[str], output: str = "", **attrs: Any) -> str:
        """Append a node; returns the name of what it makes, `output` where one is given."""
        output = output or self.name()
        made = self.onnx.helper.make_node(kind, list(inputs), [output], **attrs)
        if self._layer:
            label = f"{self._layer}/{kind}"
            self._counts[label] += 1
            made.name = label if self._counts[label] == 1 else f"{label}.{self._counts[label]}"
        self._nodes.append(made)
        return output

    def constant(self, array: Array | np.generic) -> str:
        """An initializer; equal ones are stored once."""
        array = np.asarray(array, order="C")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.name(f"c{len(self._constants)}")
            made = self.onnx.numpy_helper.from_array(array, self._constants[key])
            self._initializers.append(made)
        return self._constants[key]

    def derived(self, kind: str, inputs: Iterable[str], **attrs: Any) -> str:
        """A node of constants alone, which a runtime folds; equal ones are written once."""
        names = tuple(inputs)
        key = (kind, names, *sorted(attrs.items()))
        if key not in self._derived:
            self._derived[key] = self.node(kind, names, **attrs)
        return self._derived[key]

    def cast(self, source: str, to: str, output: str = "") -> str:
        """`source` as elements of the ONNX type `to`, e.g. "FLOAT"."""
        return self.node("Cast", [source], output, to=getattr(self.onnx.TensorProto, to))

    def signs(self, signs: Array, *, doubled: bool = False) -> str:
        """±1 (±2 when `doubled`) as floats of this shape, stored as one bit each.

        Eight elements in row-major order are one byte, the first its lowest bit, and the byte selects a row
        of a table of 256 rows of eight ±1: Cast, Gather and Reshape, all of constants.
        """
        packed = np.packbits((signs > 0).reshape(-1), bitorder="little")
        rows = self.derived("Cast", [self.constant(packed)], to=self.onnx.TensorProto.INT32)
        made = self.derived("Gather", [self._table(doubled), rows], axis=0)
        if packed.size * 8 != signs.size:
            flat = self.derived("Reshape", [made, self.constant(np.array([-1]))])
            ends = [self.constant(np.array([end])) for end in (0, signs.size, 0)]
            made = self.derived("Slice", [flat, *ends])
        return self.derived("Reshape", [made, self.constant(np.array(signs.shape, np.int64))])

    def _table(self, doubled: bool) -> str:
        bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
        bytes_ = self.constant(bits.astype(np.int8) * 2 - 1)
        table = self.derived("Cast", [bytes_], to=self.onnx.TensorProto.FLOAT)
        return self.derived("Mul", [table, self.constant(np.float32(2))]) if doubled else table

    def model(self) -> bytes:
        """The whole model, checked. ExportError where it is larger than a protobuf message may be."""
        helper = self.onnx.helper
        stored = sum(len(tensor.raw_data) for tensor in self._initializers)
        if stored > MAX_BYTES:
            raise ExportError(f"the ONNX file would hold {stored} bytes of weights, at most {MAX_BYTES} fit")
        graph = helper.make_graph(
            self._nodes,
            self.program.text("name") or "onebit",
            [self._info(name) for name in self.program.inputs],
            [self._info(name) for name in dict.fromkeys(self.program.outputs)],
            self._initializers,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        ir_version = helper.find_min_ir_version_for(opsets)
        made = helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=ir_version,
            producer_name="onebit",
            producer_version=__version__,
        )
        properties = {
            key: value if isinstance(value, str) else json.dumps(list(value), ensure_ascii=False)
            for key, value in self.program.metadata.items()
        }
        helper.set_model_props(made, properties)
        try:
            self.onnx.checker.check_model(made, full_check=True)
        except self.onnx.checker.ValidationError as error:  # an operator that this opset lacks
            raise ExportError(f"not in opset {self.opset}: {error}") from error
        serialized: bytes = made.SerializeToString()
        return serialized

    def _info(self, name: str) -> Any:
        type_ = self.program.values[name]
        element = getattr(self.onnx.TensorProto, _ELEMENT[type_.dtype])
        return self.onnx.helper.make_tensor_value_info(name, element, ["batch", *type_.shape])
