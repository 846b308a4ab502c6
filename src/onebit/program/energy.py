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
from typing import Any

from onebit.program.graph import Graph, Node
from onebit.program.ops import FLOAT_MAC, Kind, Operations
from onebit.program.tensors import DType, TensorType
from onebit.program.verify import verify

_INT32_ADD, _FLOAT_ADD, _FLOAT_MULTIPLY = 0.1, 0.9, 3.7
_MEMORIES = ((8 * 1024, 10.0), (32 * 1024, 20.0), (1024 * 1024, 100.0))  # bytes, pJ a 64-bit access
_DRAM = 1300.0


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


def estimate_energy(program: Graph) -> Energy:
    """Estimate the energy of one sample. Raises ProgramError for a broken program."""
    verify(program)
    return Energy(
        Joules(_arithmetic(program, as_float32=False), *_memory(program, _stored)),
        Joules(_arithmetic(program, as_float32=True), *_memory(program, _as_floats)),
    )


def _arithmetic(program: Graph, as_float32: bool) -> float:
    """pJ of the operations: of this program, or of the float32 network."""
    total = 0.0
    for node in program.nodes:
        op, outputs = node.facts, program.values[node.output].elements
        if op.product is not None:
            per_mac = FLOAT_MAC if as_float32 else op.product.kind.operations
            total += op.product.macs(program.call_of(node)) * _picojoules(per_mac)
        work = op.arithmetic
        per_output = work.as_float32 if as_float32 and work.as_float32 is not None else work.per_output
        total += outputs * _picojoules(per_output)
        total += program.type_of(node.inputs[0]).elements * _picojoules(work.per_input)
    return total


def _picojoules(operations: Operations) -> float:
    return (
        operations.int32_adds * _INT32_ADD
        + operations.float_adds * _FLOAT_ADD
        + operations.float_multiplies * _FLOAT_MULTIPLY
    )


def _memory(program: Graph, size: Any) -> tuple[float, float]:
    """pJ of reading the constants, and of writing and reading values; `size` gives the bytes of a type."""
    weights = sum(size(constant.type) for constant in program.constants.values())
    in_registers = _values_in_registers(program)
    moved, most = 0, 0
    for name in program.inputs:
        moved += size(program.values[name])  # written by whoever brings it
    for node in program.nodes:
        if node.facts.kind is Kind.VIEW:  # moves nothing
            continue
        values = [name for name in (*node.inputs, node.output) if name in program.values]
        held = sum(size(program.values[name]) for name in set(values) - in_registers)
        moved, most = moved + held, max(most, held)
    return weights / 8 * _per_access(weights), moved / 8 * _per_access(most)


def _values_in_registers(program: Graph) -> set[str]:
    """Values that one op makes for one other, element by element, and that nobody else sees."""
    readers: dict[str, list[Node]] = {}
    for node in program.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    made = {node.output for node in program.nodes} - set(program.outputs)
    alone = {name: readers[name][0].facts for name in made if len(readers.get(name, [])) == 1}
    return {name for name, op in alone.items() if op.is_elementwise and not op.is_binary}


def _per_access(held: int) -> float:
    return next((energy for size, energy in _MEMORIES if held <= size), _DRAM)


def _stored(type_: TensorType) -> int:
    return type_.nbytes


def _as_floats(type_: TensorType) -> int:
    """What the float32 network holds instead: 4 bytes for a bit or a sum; bytes that come in stay bytes."""
    return type_.nbytes if type_.dtype is DType.U8 else 4 * type_.elements
