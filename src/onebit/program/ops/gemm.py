"""Matrix products with a constant weight matrix: x[..., K] · w[N, K] → [..., N]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np

from onebit.program.ops.definition import (
    AttrKind,
    Op,
    Operand,
    Role,
    require,
    require_channels,
    require_dtype,
)
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
from onebit.program.tensors import Array, DType, TensorType

INT32_MAX = 2**31 - 1
_FLOAT32_EXACT = 2**24
_FLOAT64_EXACT = 2**53


def exact_float(bound: int) -> type[np.floating[Any]]:
    """The float type in which integer sums are exact in any order, if no partial sum exceeds `bound`.

    Matrix products of floats run in BLAS, those of integers in a slow loop.
    """
    if bound > _FLOAT64_EXACT:
        raise OverflowError(f"a sum of up to {bound} is not exact in float64")
    return np.float32 if bound <= _FLOAT32_EXACT else np.float64


def _exact_dot(x: Array, w: Array, bound: int) -> Array:
    wide = exact_float(bound)
    product: Array = np.matmul(x.astype(wide), w.astype(wide).T)
    return product.astype(np.int32)


def _rounded_dot(x: Array, w: Array) -> Array:
    """Products and sums in float64, one rounding to float32 at the end."""
    with np.errstate(all="ignore"):
        return (x.astype(np.float64) @ w.astype(np.float64).T).astype(np.float32)


def _infer(x_dtype: DType, w_dtype: DType, out: DType) -> Callable[[Call], TensorType]:
    def infer(call: Call) -> TensorType:
        x, w = call.types
        require_dtype("x", x, x_dtype)
        require_dtype("w", w, w_dtype)
        k = require_channels("x", x)
        require(len(w.shape) == 2, "rank of w", w, f"{w_dtype.value}[N, {k}]")
        require(w.shape[1] == k, "K of w", w, f"{w_dtype.value}[{w.shape[0]}, {k}], for x is {x}")
        return TensorType(out, (*x.shape[:-1], w.shape[0]))

    return infer


def _macs(call: Call) -> int:
    x, w = call.types
    return x.elements * w.shape[0]


def products_per_sum(call: Call) -> int:
    """K: of w[N, …] all axes but the first. Taps of a convolution outside the image count too."""
    return prod(call.types[1].shape[1:])


def sign_sums(call: Call) -> tuple[int, int]:
    """The range of a sum of ±1 products; what stands outside an image is −1, 0 or 1."""
    k = products_per_sum(call)
    return -k, k


def byte_sums(call: Call) -> tuple[int, int]:
    """The range of Σ ±(multiplier·x + offset) over bytes x: the largest term is at one end of the bytes."""
    multiplier, offset = call.integer("multiplier"), call.integer("offset")
    largest = products_per_sum(call) * max(abs(offset), abs(255 * multiplier + offset))
    return -largest, largest


def byte_bound(call: Call) -> int:
    """No partial sum of multiplier·dot, of offset·Σw or of both exceeds this."""
    term = 255 * abs(call.integer("multiplier")) + abs(call.integer("offset"))
    return products_per_sum(call) * term


def _infer_binary(call: Call) -> TensorType:
    out = _infer(DType.BITS, DType.BITS, DType.I32)(call)
    k = call.types[0].channels
    require(k <= INT32_MAX, "range of the int32 accumulator", f"K = {k}", f"K <= {INT32_MAX}")
    return out


def _binary_gemm(inputs: Sequence[Array], call: Call) -> Array:
    x, w = inputs
    return _exact_dot(x, w, bound=x.shape[-1])


def _infer_u8(call: Call) -> TensorType:
    out = _infer(DType.U8, DType.BITS, DType.I32)(call)
    require(call.integer("multiplier") != 0, "attribute multiplier", 0, "a non-zero int")
    rule = "range of the int32 accumulator"
    bound = byte_bound(call)
    require(bound <= INT32_MAX, rule, f"K·(255·|multiplier| + |offset|) = {bound}", f"at most {INT32_MAX}")
    return out


def _u8_gemm(inputs: Sequence[Array], call: Call) -> Array:
    x, w = inputs
    scaled = x.astype(np.int64) * call.integer("multiplier") + call.integer("offset")
    return _exact_dot(scaled, w, byte_bound(call))


def _float_gemm(inputs: Sequence[Array], call: Call) -> Array:
    return _rounded_dot(*inputs)


_OPERANDS = (Operand("x"), Operand("w", Role.CONST, weights=True))

# What all of them have in common.
_gemm = partial(
    Op,
    operands=_OPERANDS,
    kind=Kind.GEMM,
    arithmetic=NO_ARITHMETIC,
    monotone=not_monotone,
    scale_shift=never_scale_shift,
    selects=False,
    float_form=FloatForm(FloatKind.LINEAR),
)

GEMM_OPS = (
    _gemm(
        name="binary_gemm",
        definition=(
            "x bits[..., K], w const bits[N, K] → i32[..., N]. y[n] = Σ_k x[k]·w[n, k] over ±1 values, "
            "which is K − 2·popcount(x xor w[n]) on the bits. Exact; |y| <= K < 2^31."
        ),
        infer=_infer_binary,
        compute=_binary_gemm,
        product=ProductFacts(_macs, MacKind.ONE_BIT, sign_sums),
        tolerance=EXACT,
        why_not_one_bit="",
    ),
    _gemm(
        name="u8_gemm",
        definition=(
            "x u8[..., K], w const bits[N, K], attributes multiplier (int, not 0) and offset (int) → "
            "i32[..., N]. y[n] = Σ_k w[n, k]·(multiplier·x[k] + offset). Exact; K·(255·|multiplier| + "
            "|offset|) <= 2^31 − 1, so multiplier·Σ w·x, offset·Σ w and their sum fit an int32 each."
        ),
        infer=_infer_u8,
        compute=_u8_gemm,
        product=ProductFacts(_macs, MacKind.BYTE_BY_BIT, byte_sums),
        tolerance=EXACT,
        attrs={"multiplier": AttrKind.INT, "offset": AttrKind.INT},
        why_not_one_bit="its input is 8-bit (weights are 1-bit)",
    ),
    _gemm(
        name="f32_binary_gemm",
        definition=(
            "x f32[..., K], w const bits[N, K] → f32[..., N]. y[n] = Σ_k w[n, k]·x[k]. The reference sums "
            "in float64 and rounds once; an engine may sum float32 in any order, within K·2^-24·Σ_k |x[k]| "
            "of it."
        ),
        infer=_infer(DType.F32, DType.BITS, DType.F32),
        compute=_float_gemm,
        product=ProductFacts(_macs, MacKind.FLOAT_BY_BIT, None),
        tolerance=Tolerance(products_per_sum),
        why_not_one_bit="its input is float32, not bits (weights are 1-bit)",
    ),
    _gemm(
        name="f32_gemm",
        definition=(
            "x f32[..., K], w const f32[N, K] → f32[..., N]. y[n] = Σ_k w[n, k]·x[k]. The reference sums in "
            "float64 and rounds once; an engine may sum float32 in any order, within (K + 1)·2^-24·Σ_k "
            "|w[n, k]·x[k]| of it."
        ),
        infer=_infer(DType.F32, DType.F32, DType.F32),
        compute=_float_gemm,
        product=ProductFacts(_macs, MacKind.FLOAT, None),
        tolerance=Tolerance(lambda call: products_per_sum(call) + 1),
        why_not_one_bit="its weights and its input are float32: an ordinary Linear layer",
    ),
)
