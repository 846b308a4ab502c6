"""Ops that move elements and compute nothing."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from onebit.program.ops.definition import AttrKind, Op, Operand, require, require_channels
from onebit.program.ops.facts import (
    EXACT,
    NO_ARITHMETIC,
    Call,
    FloatForm,
    FloatKind,
    Kind,
    never_scale_shift,
    not_monotone,
    rises,
)
from onebit.program.tensors import Array, DType, TensorType


def _infer_reshape(call: Call) -> TensorType:
    (x,) = call.types
    shape = call.ints("shape")
    require(prod(shape) == x.elements, "attribute shape", f"{shape} for {x}", f"{x.elements} elements")
    require(x.dtype is not DType.BITS or len(shape) >= 1, "attribute shape", shape, "rank 1 or more for bits")
    return TensorType(x.dtype, shape)


def _reshape(inputs: Sequence[Array], call: Call) -> Array:
    (x,) = inputs
    return x.reshape(x.shape[0], *call.ints("shape"))


def _infer_permute(call: Call) -> TensorType:
    (x,) = call.types
    axes = call.ints("axes")
    rank = len(x.shape)
    good = sorted(axes) == list(range(rank))
    require(good, "attribute axes", f"{axes} for {x}", f"each of 0 to {rank - 1} once" if rank else "()")
    return TensorType(x.dtype, tuple(x.shape[axis] for axis in axes))


def _permute(inputs: Sequence[Array], call: Call) -> Array:
    (x,) = inputs
    return np.transpose(x, (0, *(axis + 1 for axis in call.ints("axes"))))


def _infer_concat(call: Call) -> TensorType:
    first = call.types[0]
    channels = require_channels("input 0", first)
    for index, type_ in enumerate(call.types[1:], 1):
        rule = f"dtype and leading axes of input {index}"
        same = type_.dtype is first.dtype and type_.shape[:-1] == first.shape[:-1] and type_.shape
        require(bool(same), rule, type_, f"those of {first}")
        channels += type_.channels
    return TensorType(first.dtype, (*first.shape[:-1], channels))


def _concat(inputs: Sequence[Array], call: Call) -> Array:
    return np.concatenate(inputs, axis=-1)


SHAPE_OPS = (
    Op(
        name="reshape",
        definition=(
            "x of any dtype, attribute shape (tuple of ints >= 1) → the same elements in the same row-major "
            "order of one sample, with this shape. The order is the logical one: bits are packed anew where "
            "the last axis changes."
        ),
        operands=(Operand("x"),),
        infer=_infer_reshape,
        compute=_reshape,
        kind=Kind.VIEW,
        product=None,
        arithmetic=NO_ARITHMETIC,
        monotone=rises,
        scale_shift=never_scale_shift,
        selects=True,
        tolerance=EXACT,
        float_form=FloatForm(FloatKind.RESHAPE),
        why_not_one_bit="",
        attrs={"shape": AttrKind.SIZES},
    ),
    Op(
        name="permute",
        definition=(
            "x of any dtype, attribute axes (a tuple that holds each axis of one sample once) → x with its "
            "axes in this order: axis i of y is axis axes[i] of x. The order is the logical one: bits are "
            "packed anew where the last axis moves."
        ),
        operands=(Operand("x"),),
        infer=_infer_permute,
        compute=_permute,
        kind=Kind.LAYOUT,
        product=None,
        arithmetic=NO_ARITHMETIC,
        monotone=rises,
        scale_shift=never_scale_shift,
        selects=True,
        tolerance=EXACT,
        float_form=FloatForm(FloatKind.TRANSPOSE),
        why_not_one_bit="",
        attrs={"axes": AttrKind.COUNTS},
    ),
    Op(
        name="concat",
        definition=(
            "a [..., C1], b [..., C2] and any number of further values, all of one dtype (any) and with the "
            "same leading axes → the same dtype [..., C1 + C2 + …]: their channels one after another. Bits "
            "are packed anew, for a channel count need not be a multiple of 32."
        ),
        operands=(Operand("a"), Operand("b")),
        infer=_infer_concat,
        compute=_concat,
        kind=Kind.LAYOUT,
        product=None,
        arithmetic=NO_ARITHMETIC,
        monotone=not_monotone,
        scale_shift=never_scale_shift,
        selects=True,
        tolerance=EXACT,
        float_form=FloatForm(FloatKind.CONCAT),
        why_not_one_bit="",
        variadic=True,
    ),
)
