"""The same network in float32, read off a Program: what a user without this engine would run.

Everything that helps a float engine is done for it: threshold and BatchNorm are folded into the weights and
the bias of the matrix product before them, so a hidden layer is one product and one sign; and the input comes
as float32 (raw byte values for a u8 input), converted outside the timing. Weights are real float32 ±1 (±2 in
a first layer that takes bytes). Results equal the packed network's, up to float32 rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from onebit.program import DType, Node, Program, unpack_bits

Floats = npt.NDArray[np.float32]


class NotComparable(ValueError):
    """This Program has an op that the float peers do not know."""


@dataclass(frozen=True)
class FloatOp:
    """One op of the float network. `kind` says which of `arrays` and `attrs` it has:

    linear      weight [N, K], bias [N] (or none)      y = x·weightᵀ + bias
    signum                                             ±1; the input is never 0
    sign                                               +1 where x >= 0, else −1
    affine      scale [C], shift [C]                   y = x·scale + shift
    add sub mul div   other (when one operand is constant), attrs["swapped"] if the constant stands first
    relu · prelu (slope) · hardtanh (attrs min, max) · reshape (attrs shape, of one sample)
    """

    kind: str
    inputs: tuple[str, ...]
    output: str
    arrays: dict[str, Floats] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)


def float_network(program: Program) -> list[FloatOp]:
    """The ops of the float32 network that computes what `program` does, in topological order.

    Raises NotComparable, naming the op, for an op outside the table above.
    """
    uses: dict[str, int] = {}
    for node in program.nodes:
        for name in node.inputs:
            uses[name] = uses.get(name, 0) + 1
    ops: list[FloatOp] = []
    alias: dict[str, str] = {}
    for node in program.nodes:
        translate = _TRANSLATE.get(node.op)
        if translate is None:
            raise NotComparable(f"op {node.op!r} (layer {node.layer!r}) has no float32 peer here")
        op = translate(program, node)
        if op is None:
            alias[node.output] = alias.get(node.inputs[0], node.inputs[0])
            continue
        op = FloatOp(op.kind, tuple(alias.get(n, n) for n in op.inputs), op.output, op.arrays, op.attrs)
        before = ops[-1] if ops else None
        sole = before is not None and op.inputs == (before.output,) and uses[node.inputs[0]] == 1
        if before is not None and sole and before.output not in program.outputs and _folds(before, op):
            ops[-1:] = _fold(before, op)
        else:
            ops.append(op)
    for name in program.outputs:
        if name in alias:
            ops.append(FloatOp("reshape", (alias[name],), name, {}, {"shape": program.values[name].shape}))
    return ops


def peer_input(program: Program, sample: npt.NDArray[Any]) -> Floats:
    """The input array as the float network takes it: float32, bytes as their values, bits as ±1."""
    return np.ascontiguousarray(sample, dtype=np.float32)


def float_bytes(ops: list[FloatOp]) -> int:
    """Bytes of parameters of the float32 network."""
    return sum(array.nbytes for op in ops for array in op.arrays.values())


def _signs(program: Program, name: str) -> Floats:
    constant = program.constants[name]
    positive = unpack_bits(constant.array, constant.type.channels)
    return np.where(positive, np.float32(1), np.float32(-1))


def _linear(program: Program, node: Node) -> FloatOp:
    constant = program.constants[node.inputs[1]]
    weight = _signs(program, node.inputs[1]) if constant.type.dtype is DType.BITS else constant.array
    bias: dict[str, Floats] = {}
    if node.op == "u8_gemm":
        multiplier, offset = _number(node, "multiplier"), _number(node, "offset")
        bias = {"bias": (weight.sum(axis=1) * offset).astype(np.float32)}
        weight = (weight * multiplier).astype(np.float32)
    return FloatOp("linear", node.inputs[:1], node.output, {"weight": weight, **bias})


def _threshold(program: Program, node: Node) -> FloatOp:
    """(x >= t) xor flip as the sign of ±(x − (t − ½)): an integer x is never on the boundary."""
    thresholds = program.constants[node.inputs[1]].array.astype(np.float64)
    direction = -_signs(program, node.inputs[2]).astype(np.float64)  # flip bit 1 inverts
    half = np.clip(thresholds, -(2.0**24), 2.0**24) - 0.5
    arrays = {"scale": direction.astype(np.float32), "shift": (-half * direction).astype(np.float32)}
    return FloatOp("signum", node.inputs[:1], node.output, arrays)


def _affine(program: Program, node: Node) -> FloatOp:
    scale, shift = (program.constants[name].array for name in node.inputs[1:])
    return FloatOp("affine", node.inputs[:1], node.output, {"scale": scale, "shift": shift})


def _scale_pixels(program: Program, node: Node) -> FloatOp:
    channels = program.values[node.output].shape[-1]
    arrays = {
        "scale": np.full(channels, 2 / 256, np.float32),
        "shift": np.full(channels, -255 / 256, np.float32),
    }
    return FloatOp("affine", node.inputs, node.output, arrays)


def _binary(program: Program, node: Node) -> FloatOp:
    constants = [name for name in node.inputs if name in program.constants]
    if not constants:
        return FloatOp(node.op, node.inputs, node.output)
    other = program.constants[constants[0]].array.astype(np.float32)
    values = tuple(name for name in node.inputs if name not in program.constants)
    swapped = node.inputs[0] in program.constants
    return FloatOp(node.op, values, node.output, {"other": other}, {"swapped": swapped})


def _plain(program: Program, node: Node) -> FloatOp:
    return FloatOp(node.op, node.inputs[:1], node.output, {}, dict(node.attrs))


def _prelu(program: Program, node: Node) -> FloatOp:
    return FloatOp("prelu", node.inputs[:1], node.output, {"slope": program.constants[node.inputs[1]].array})


def _nothing(program: Program, node: Node) -> None:
    return None


_TRANSLATE: dict[str, Callable[[Program, Node], FloatOp | None]] = {
    "binary_gemm": _linear,
    "u8_gemm": _linear,
    "f32_binary_gemm": _linear,
    "f32_gemm": _linear,
    "threshold": _threshold,
    "affine": _affine,
    "scale_pixels": _scale_pixels,
    "add": _binary,
    "sub": _binary,
    "mul": _binary,
    "div": _binary,
    "sign": _plain,
    "relu": _plain,
    "hardtanh": _plain,
    "reshape": _plain,
    "prelu": _prelu,
    "to_float": _nothing,
}


def _number(node: Node, name: str) -> float:
    value = node.attrs[name]
    if not isinstance(value, int | float):
        raise NotComparable(f"{node.op}: attribute {name}={value!r} is no number")
    return value


def _folds(before: FloatOp, op: FloatOp) -> bool:
    return before.kind == "linear" and op.kind in ("affine", "signum") and "scale" in op.arrays


def _fold(linear: FloatOp, op: FloatOp) -> list[FloatOp]:
    """linear then (x·scale + shift) is one linear; a signum keeps its sign as an op of its own."""
    scale = op.arrays["scale"].astype(np.float64)
    bias = linear.arrays.get("bias", np.float32(0)) * scale + op.arrays["shift"]
    arrays = {
        "weight": np.ascontiguousarray(linear.arrays["weight"] * scale[:, None], dtype=np.float32),
        "bias": np.ascontiguousarray(bias, dtype=np.float32),
    }
    if op.kind == "affine":
        return [FloatOp("linear", linear.inputs, op.output, arrays)]
    inner = f"{op.output}.sum"
    return [FloatOp("linear", linear.inputs, inner, arrays), FloatOp("signum", (inner,), op.output)]
