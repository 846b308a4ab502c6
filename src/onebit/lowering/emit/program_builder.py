"""Grows a Program node by node. Equal nodes are made once."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping

import numpy as np

from onebit.lowering.emit import magnitude
from onebit.program import Constant, DType, Node, Program, TensorType, pack_bits
from onebit.program.limits import MAX_NAME
from onebit.program.ops import OPS, Call
from onebit.program.tensors import Array, Attr


class ProgramBuilder:
    """Mutable counterpart of a Program. Names are provisional: `name_values` makes the final ones."""

    def __init__(self) -> None:
        self._inputs: list[str] = []
        self._nodes: list[Node] = []
        self._constants: dict[str, Constant] = {}
        self._values: dict[str, TensorType] = {}
        self._made: dict[tuple[object, ...], str] = {}
        self._magnitudes: dict[str, float | None] = {}
        self.hints: dict[str, str] = {}  # constant -> the dotted name it should get

    def input(self, name: str, type_: TensorType) -> str:
        """Declare the next input of the Program."""
        self._inputs.append(name)
        self._values[name] = type_
        self._magnitudes[name] = magnitude.of_input(type_)
        return name

    def never_nan(self, name: str) -> bool:
        """No input of the Program makes this value NaN, as far as its bounds tell."""
        return self._magnitudes[name] is not None

    def type_of(self, name: str) -> TensorType:
        """Type of a value or constant."""
        return self._constants[name].type if name in self._constants else self._values[name]

    def node(
        self,
        op: str,
        *inputs: str,
        layer: str,
        attrs: Mapping[str, Attr] | None = None,
        tag: Hashable = None,
    ) -> str:
        """Append a node; returns the name of its output. ProgramError if the op does not fit its inputs.

        Equal nodes with different tags stay apart.
        """
        attributes = dict(attrs or {})
        key = (op, inputs, tuple(sorted(attributes.items())), tag)
        if key in self._made:
            return self._made[key]
        call = Call(
            tuple(self.type_of(name) for name in inputs),
            tuple(name in self._constants for name in inputs),
            attributes,
        )
        output = f"%{len(self._values)}"
        self._values[output] = OPS[op].infer(call)
        sizes = [self._magnitudes[name] for name in inputs if name in self._magnitudes]
        constants = tuple(self._as_numbers(name) for name in inputs)
        self._magnitudes[output] = magnitude.of_node(OPS[op], call, sizes, constants, self._values[output])
        layer = "".join(c if c.isprintable() else "_" for c in layer[-MAX_NAME:])
        self._nodes.append(Node(op, inputs, output, attributes, layer, OPS[op].version))
        self._made[key] = output
        return output

    def _as_numbers(self, name: str) -> Array | None:
        """A constant as floats, ±1 being 1; None of a value."""
        constant = self._constants.get(name)
        if constant is None:
            return None
        return constant.array if constant.type.dtype is DType.F32 else np.ones(1, np.float32)

    def floats(self, array: Array, hint: str) -> str:
        """A float32 constant; `hint` is the name it would like."""
        stored = np.ascontiguousarray(array, dtype="<f4")
        return self._constant(Constant(TensorType(DType.F32, stored.shape), stored), hint)

    def signs(self, positive: Array, hint: str) -> str:
        """A ±1 constant from a boolean array, True meaning +1."""
        type_ = TensorType(DType.BITS, positive.shape)
        return self._constant(Constant(type_, pack_bits(positive)), hint)

    def _constant(self, constant: Constant, hint: str) -> str:
        # A tensor of the model that is used twice is stored once; unnamed numbers stay with their layers.
        key = ("constant", hint, constant.type, hashlib.sha256(constant.array.tobytes()).digest())
        if "." in hint and key in self._made:
            return self._made[key]
        name = f"#{len(self._constants)}"
        self._constants[name] = constant
        self.hints[name] = hint
        self._made[key] = name
        return name

    def program(self, outputs: tuple[str, ...], metadata: Mapping[str, str]) -> Program:
        """The finished Program; constants that no node reads are left out."""
        used = {name for node in self._nodes for name in node.inputs}
        constants = {name: c for name, c in self._constants.items() if name in used}
        return Program(
            tuple(self._inputs), outputs, tuple(self._nodes), constants, dict(self._values), metadata
        )
