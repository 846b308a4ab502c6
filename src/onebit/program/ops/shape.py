"""Ops that move elements and compute nothing."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from onebit.program.ops.definition import AttrKind, Call, Op, Operand, require
from onebit.program.tensors import Array, DType, TensorType


def _infer_reshape(call: Call) -> TensorType:
    (x,) = call.types
    shape = call.shape("shape")
    require(prod(shape) == x.elements, "attribute shape", f"{shape} for {x}", f"{x.elements} elements")
    require(x.dtype is not DType.BITS or len(shape) >= 1, "attribute shape", shape, "rank 1 or more for bits")
    return TensorType(x.dtype, shape)


def _reshape(inputs: Sequence[Array], call: Call) -> Array:
    (x,) = inputs
    return x.reshape(x.shape[0], *call.shape("shape"))


SHAPE_OPS = (
    Op(
        "reshape",
        "x of any dtype, attribute shape (tuple of ints >= 1) → the same elements in the same row-major "
        "order of one sample, with this shape. The order is the logical one: bits are packed anew where the "
        "last axis changes.",
        (Operand("x"),),
        _infer_reshape,
        _reshape,
        attrs={"shape": AttrKind.SHAPE},
    ),
)
