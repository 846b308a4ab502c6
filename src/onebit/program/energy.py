"""Energy of one inference, estimated from the 45 nm table of "Binarized Neural Networks".

arXiv 1602.02830, its tables of energy (Horowitz, ISSCC 2014), picojoules:

    an operation            multiply   add        a 64-bit access to memory of
    8-bit integer              0.2     0.03          8 KB of SRAM        10
    32-bit integer             3.1     0.1          32 KB of SRAM        20
    16-bit float               1.1     0.4           1 MB of SRAM       100
    32-bit float               3.7     0.9               DRAM         1300 to 2600 (1300 is taken)

The table has no xor and no popcount. 32 one-bit multiply-accumulates are one xor, one popcount and one
addition of 32-bit words, and each of the three is charged as a 32-bit integer addition. A one-bit weight
times anything else is a signed addition in that number's format.

Memory: all constants are read once; a value is written once and read once by each op that takes it. What is
computed on the way from a product to the next product (thresholds, scales, activations) stays in registers,
here and in the float32 network. Weights, and the largest input and output that an op holds at once, are each
charged as the smallest memory of the table that holds them all.

The float32 network is the same one with a float32 number for every bit: every multiply-accumulate is a
float32 multiplication and addition, a threshold is the BatchNorm that it came from.

This is arithmetic and memory alone, on a process of 2014: no instruction fetch, no control, no leakage. It
ranks networks; it is no measurement of a chip.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from onebit.program.graph import Node, Program
from onebit.program.ops import ELEMENTWISE, OPS, Call
from onebit.program.tensors import DType, TensorType
from onebit.program.verify import verify

INT32_ADD, FLOAT_ADD, FLOAT_MULTIPLY = 0.1, 0.9, 3.7
_FLOAT_MAC = FLOAT_MULTIPLY + FLOAT_ADD
_MEMORIES = ((8 * 1024, 10.0), (32 * 1024, 20.0), (1024 * 1024, 100.0))  # bytes, pJ a 64-bit access
_DRAM = 1300.0

# pJ of a multiply-accumulate, by the factors' formats.
_PER_MAC = {
    "binary_gemm": 3 * INT32_ADD / 32,
    "binary_conv2d": 3 * INT32_ADD / 32,
    "u8_gemm": INT32_ADD,
    "u8_conv2d": INT32_ADD,
    "f32_binary_gemm": FLOAT_ADD,
    "f32_binary_conv2d": FLOAT_ADD,
    "f32_gemm": _FLOAT_MAC,
    "f32_conv2d": _FLOAT_MAC,
}
# pJ of an output element: (here, in the float32 network). What is not listed moves data or looks at a sign.
_PER_ELEMENT = {
    "threshold": (INT32_ADD, _FLOAT_MAC),
    "affine": (_FLOAT_MAC, _FLOAT_MAC),
    "scale_pixels": (_FLOAT_MAC, _FLOAT_MAC),
    "mul": (FLOAT_MULTIPLY, FLOAT_MULTIPLY),
    "div": (FLOAT_MULTIPLY, FLOAT_MULTIPLY),
    "prelu": (FLOAT_MULTIPLY, FLOAT_MULTIPLY),
    "add": (FLOAT_ADD, FLOAT_ADD),
    "sub": (FLOAT_ADD, FLOAT_ADD),
}
# Ops on one value, element by element: they work on what stands in registers.
_IN_REGISTERS = ELEMENTWISE - {"add", "sub", "mul", "div"}
_RENAMES = {"reshape"}  # moves nothing


@dataclass(frozen=True)
class Joules:
    """Picojoules of one sample."""

    arithmetic: float
    weights: float  # reading the constants
    activations: float  # writing and reading what flows between ops

    @property
    def total(self) -> float:
        """All three together."""
        return self.arithmetic + self.weights + self.activations


@dataclass(frozen=True)
class Energy:
    """This program beside the same network in float32."""

    packed: Joules
    float32: Joules

    @property
    def ratio(self) -> float:
        """How many times the float32 network's energy is this one's."""
        return self.float32.total / self.packed.total if self.packed.total else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, ready for JSON; picojoules."""
        return {"unit": "pJ", **asdict(self), "ratio": self.ratio}


def estimate_energy(program: Program) -> Energy:
    """Estimate the energy of one sample. Raises ProgramError for a broken program."""
    verify(program)
    return Energy(
        Joules(_arithmetic(program, 0), *_memory(program, _stored)),
        Joules(_arithmetic(program, 1), *_memory(program, _as_floats)),
    )


def _arithmetic(program: Program, which: int) -> float:
    """pJ of the operations: of this program (0), of the float32 network (1)."""
    total = 0.0
    for node in program.nodes:
        elements = prod(program.values[node.output].shape)
        if node.op in _PER_MAC:
            total += _macs(program, node) * (_FLOAT_MAC if which else _PER_MAC[node.op])
        elif node.op in ("avg_pool2d", "channel_mean"):
            total += prod(program.values[node.inputs[0]].shape) * FLOAT_ADD + elements * FLOAT_MULTIPLY
        else:
            total += elements * _PER_ELEMENT.get(node.op, (0.0, 0.0))[which]
    return total


def _macs(program: Program, node: Node) -> int:
    types = tuple(program.type_of(name) for name in node.inputs)
    call = Call(types, tuple(name in program.constants for name in node.inputs), node.attrs)
    return OPS[node.op].macs(call)


def _memory(program: Program, size: Any) -> tuple[float, float]:
    """pJ of reading the constants, and of writing and reading values; `size` gives the bytes of a type."""
    weights = sum(size(constant.type) for constant in program.constants.values())
    in_registers = _values_in_registers(program)
    moved, most = 0, 0
    for name in program.inputs:
        moved += size(program.values[name])  # written by whoever brings it
    for node in program.nodes:
        if node.op in _RENAMES:
            continue
        values = [name for name in (*node.inputs, node.output) if name in program.values]
        held = sum(size(program.values[name]) for name in set(values) - in_registers)
        moved, most = moved + held, max(most, held)
    return weights / 8 * _per_access(weights), moved / 8 * _per_access(most)


def _values_in_registers(program: Program) -> set[str]:
    """Values that one op makes for one other, element by element, and that nobody else sees."""
    readers: dict[str, list[Node]] = {}
    for node in program.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    made = {node.output for node in program.nodes} - set(program.outputs)
    return {name for name in made if len(readers.get(name, [])) == 1 and readers[name][0].op in _IN_REGISTERS}


def _per_access(held: int) -> float:
    return next((energy for size, energy in _MEMORIES if held <= size), _DRAM)


def _stored(type_: TensorType) -> int:
    return type_.nbytes


def _as_floats(type_: TensorType) -> int:
    """What the float32 network holds instead: 4 bytes for a bit or a sum; bytes that come in stay bytes."""
    return type_.nbytes if type_.dtype is DType.U8 else 4 * type_.elements
