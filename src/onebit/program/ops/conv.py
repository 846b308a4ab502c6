"""Convolutions with constant weights, NHWC: x[H, W, C] and w[N, KH, KW, C/groups] → [OH, OW, N]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from onebit.program.ops.definition import AttrKind, Op, Operand, Role, require, require_dtype
from onebit.program.ops.facts import (
    EXACT,
    NO_ARITHMETIC,
    Call,
    FloatForm,
    FloatKind,
    Kind,
    MacKind,
    ProductFacts,
    Tolerance,
    never_scale_shift,
    not_monotone,
)
from onebit.program.ops.gemm import (
    INT32_MAX,
    byte_bound,
    byte_sums,
    exact_float,
    products_per_sum,
    sign_sums,
)
from onebit.program.ops.windows import GEOMETRY, Axis, axes_of, describe_geometry
from onebit.program.tensors import Array, DType, TensorType


def _kernel(call: Call) -> tuple[int, int]:
    shape = call.types[1].shape
    return shape[1], shape[2]


def _axes(call: Call) -> tuple[Axis, Axis]:
    return axes_of(call.types[0], _kernel(call), call)


def _infer(x_dtype: DType, w_dtype: DType, out: DType) -> Callable[[Call], TensorType]:
    def infer(call: Call) -> TensorType:
        x, w = call.types
        groups = call.integer("groups")
        require_dtype("x", x, x_dtype)
        require_dtype("w", w, w_dtype)
        require(len(x.shape) == 3, "rank of x", x, f"{x_dtype.value}[H, W, C]")
        require(len(w.shape) == 4, "rank of w", w, f"{w_dtype.value}[N, KH, KW, C/groups]")
        n, channels = w.shape[0], x.shape[2]
        divides = groups >= 1 and channels % groups == 0 and n % groups == 0
        require(divides, "attribute groups", groups, f"a divisor of C = {channels} and of N = {n}")
        rule = "channels of w"
        require(w.shape[3] == channels // groups, rule, w, f"C/groups = {channels}/{groups} for x {x}")
        rows, columns = _axes(call)
        return TensorType(out, (rows.outputs, columns.outputs, n))

    return infer


def _macs(call: Call) -> int:
    """Every tap counts, also those outside the image."""
    rows, columns = _axes(call)
    return rows.outputs * columns.outputs * call.types[1].elements


def _correlate(x: Array, w: Array, call: Call, wide: type[np.floating[Any]]) -> Array:
    """Σ w·x over the taps inside the image, in `wide` floats: one matrix product a tap and group."""
    rows, columns = _axes(call)
    groups = call.integer("groups")
    x = x.astype(wide)
    n, kernel_h, kernel_w, depth = w.shape
    matrices = w.astype(wide).reshape(groups, n // groups, kernel_h, kernel_w, depth).transpose(2, 3, 0, 4, 1)
    out = np.zeros((len(x), rows.outputs, columns.outputs, n), wide)
    for i in range(kernel_h):
        to_rows, from_rows = rows.outputs_that_hit(i)
        for j in range(kernel_w):
            to_columns, from_columns = columns.outputs_that_hit(j)
            pixels = x[:, from_rows, from_columns]
            left = pixels.reshape(-1, groups, depth).transpose(1, 0, 2)
            product = np.matmul(left, matrices[i, j]).transpose(1, 0, 2)
            out[:, to_rows, to_columns] += product.reshape(*pixels.shape[:3], n)
    return out


def _infer_binary(call: Call) -> TensorType:
    out = _infer(DType.BITS, DType.BITS, DType.I32)(call)
    k = products_per_sum(call)
    require(k <= INT32_MAX, "range of the int32 accumulator", f"KH·KW·C/groups = {k}", f"at most {INT32_MAX}")
    value = call.integer("padding_value")
    require(value in (0, 1, -1), "attribute padding_value", value, "0, 1 or -1")
    return out


def _binary_conv(inputs: Sequence[Array], call: Call) -> Array:
    x, w = inputs
    outside = call.integer("padding_value")
    # As if every tap were outside, plus what the taps inside add to that: no padded image is needed.
    # |x − outside| <= 2, so no partial sum exceeds 3K.
    wide = exact_float(3 * products_per_sum(call))
    inside = _correlate(x - np.int8(outside), w, call, wide)
    total: Array = inside + outside * w.sum(axis=(1, 2, 3), dtype=wide)
    return total.astype(np.int32)


def _infer_u8(call: Call) -> TensorType:
    out = _infer(DType.U8, DType.BITS, DType.I32)(call)
    require(call.integer("multiplier") != 0, "attribute multiplier", 0, "a non-zero int")
    found = f"KH·KW·C/groups·(255·|multiplier| + |offset|) = {byte_bound(call)}"
    rule = "range of the int32 accumulator"
    require(byte_bound(call) <= INT32_MAX, rule, found, f"at most {INT32_MAX}")
    return out


def _u8_conv(inputs: Sequence[Array], call: Call) -> Array:
    x, w = inputs
    scaled = x.astype(np.int64) * call.integer("multiplier") + call.integer("offset")
    return _correlate(scaled, w, call, exact_float(byte_bound(call))).astype(np.int32)


def _float_conv(inputs: Sequence[Array], call: Call) -> Array:
    x, w = inputs
    with np.errstate(all="ignore"):
        return _correlate(x, w, call, np.float64).astype(np.float32)


def _geometry(call: Call) -> str:
    return describe_geometry(_kernel(call), call)


_OPERANDS = (Operand("x"), Operand("w", Role.CONST, weights=True))
_ATTRS = {**GEOMETRY, "groups": AttrKind.INT}

# What all of them have in common.
_conv = partial(
    Op,
    operands=_OPERANDS,
    kind=Kind.CONV,
    arithmetic=NO_ARITHMETIC,
    monotone=not_monotone,
    scale_shift=never_scale_shift,
    selects=False,
    float_form=FloatForm(FloatKind.CONV),
    geometry=_geometry,
)

CONV_OPS = (
    _conv(
        name="binary_conv2d",
        definition=(
            "x bits[H, W, C], w const bits[N, KH, KW, C/groups], attributes of a convolution and "
            "padding_value (0, 1 or −1) → i32[OH, OW, N]. y[o, q, n] = Σ w[n, i, j, c]·x at tap (i, j) and "
            "channel c, over ±1 values; a tap outside the image adds padding_value·w, so with 0 nothing. "
            "Exact; |y| <= KH·KW·C/groups < 2^31."
        ),
        infer=_infer_binary,
        compute=_binary_conv,
        product=ProductFacts(_macs, MacKind.ONE_BIT, sign_sums),
        tolerance=EXACT,
        why_not_one_bit="",
        attrs={**_ATTRS, "padding_value": AttrKind.INT},
    ),
    _conv(
        name="u8_conv2d",
        definition=(
            "x u8[H, W, C], w const bits[N, KH, KW, C/groups], attributes of a convolution, multiplier "
            "(int, not 0) and offset (int) → i32[OH, OW, N]. y[o, q, n] = Σ w[n, i, j, c]·(multiplier·x + "
            "offset) over the taps inside the image. Exact; KH·KW·C/groups·(255·|multiplier| + |offset|) <= "
            "2^31 − 1, so multiplier·Σ w·x, offset·Σ w and their sum fit an int32 each."
        ),
        infer=_infer_u8,
        compute=_u8_conv,
        product=ProductFacts(_macs, MacKind.BYTE_BY_BIT, byte_sums),
        tolerance=EXACT,
        attrs={**_ATTRS, "multiplier": AttrKind.INT, "offset": AttrKind.INT},
        why_not_one_bit="its input is 8-bit (weights are 1-bit)",
    ),
    _conv(
        name="f32_binary_conv2d",
        definition=(
            "x f32[H, W, C], w const bits[N, KH, KW, C/groups], attributes of a convolution → f32[OH, OW, "
            "N]. y[o, q, n] = Σ w[n, i, j, c]·x over the taps inside the image. The reference sums in "
            "float64 and rounds once; an engine may sum float32 in any order, within K·2^-24·Σ |x| of it, K "
            "= KH·KW·C/groups."
        ),
        infer=_infer(DType.F32, DType.BITS, DType.F32),
        compute=_float_conv,
        product=ProductFacts(_macs, MacKind.FLOAT_BY_BIT, None),
        tolerance=Tolerance(products_per_sum),
        attrs=_ATTRS,
        why_not_one_bit="its input is float32, not bits (weights are 1-bit)",
    ),
    _conv(
        name="f32_conv2d",
        definition=(
            "x f32[H, W, C], w const f32[N, KH, KW, C/groups], attributes of a convolution → f32[OH, OW, "
            "N]. y[o, q, n] = Σ w[n, i, j, c]·x over the taps inside the image. The reference sums in "
            "float64 and rounds once; an engine may sum float32 in any order, within (K + 1)·2^-24·Σ |w·x| "
            "of it, K = KH·KW·C/groups."
        ),
        infer=_infer(DType.F32, DType.F32, DType.F32),
        compute=_float_conv,
        product=ProductFacts(_macs, MacKind.FLOAT, None),
        tolerance=Tolerance(lambda call: products_per_sum(call) + 1),
        attrs=_ATTRS,
        why_not_one_bit="its weights and its input are float32: an ordinary convolution",
    ),
)
