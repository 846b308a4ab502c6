"""Ops that treat each element alone: signs, thresholds, conversions, float arithmetic, activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from onebit.errors import ProgramError
from onebit.program.numerics import fma
from onebit.program.ops.definition import (
    AttrKind,
    Call,
    Op,
    Operand,
    Role,
    require,
    require_channels,
    require_dtype,
    require_type,
)
from onebit.program.tensors import Array, DType, TensorType

FLOAT32_MAX = float(np.finfo(np.float32).max)


def _plus_minus(positive: Array) -> Array:
    return np.where(positive, np.int8(1), np.int8(-1))


def _infer_sign(call: Call) -> TensorType:
    (x,) = call.types
    require_dtype("x", x, DType.F32)
    require_channels("x", x)
    return TensorType(DType.BITS, x.shape)


def _sign(inputs: Sequence[Array], call: Call) -> Array:
    return _plus_minus(inputs[0] >= 0)


def _infer_threshold(call: Call) -> TensorType:
    x, thresholds, flip = call.types
    require_dtype("x", x, DType.I32)
    channels = require_channels("x", x)
    require_type("thresholds", thresholds, DType.I32, channels)
    require_type("flip", flip, DType.BITS, channels)
    return TensorType(DType.BITS, x.shape)


def _threshold(inputs: Sequence[Array], call: Call) -> Array:
    x, thresholds, flip = inputs
    return _plus_minus((x >= thresholds) ^ (flip > 0))


def _infer_to_float(call: Call) -> TensorType:
    (x,) = call.types
    require_dtype("x", x, DType.I32, DType.U8, DType.BITS)
    return TensorType(DType.F32, x.shape)


def _to_float(inputs: Sequence[Array], call: Call) -> Array:
    return inputs[0].astype(np.float32)


def _infer_scale_pixels(call: Call) -> TensorType:
    (x,) = call.types
    require_dtype("x", x, DType.U8)
    return TensorType(DType.F32, x.shape)


def _scale_pixels(inputs: Sequence[Array], call: Call) -> Array:
    return (inputs[0].astype(np.float32) * np.float32(2) - np.float32(255)) / np.float32(256)


def _infer_affine(call: Call) -> TensorType:
    x, scale, shift = call.types
    require_dtype("x", x, DType.F32)
    channels = require_channels("x", x)
    require_type("scale", scale, DType.F32, channels)
    require_type("shift", shift, DType.F32, channels)
    return x


def _affine(inputs: Sequence[Array], call: Call) -> Array:
    x, scale, shift = inputs
    return fma(x, scale, shift)


def _infer_arithmetic(call: Call) -> TensorType:
    a, b = call.types
    require_dtype("a", a, DType.F32)
    require_dtype("b", b, DType.F32)
    require(not all(call.constant), "operands", "two constants", "at least one value")
    if not any(call.constant):
        one = bool(a.shape and b.shape) and a.shape[:-1] == b.shape[:-1] and 1 in (a.shape[-1], b.shape[-1])
        expected = "the same shape, or the same leading axes and one channel in one of them"
        require(a == b or one, "two values", f"{a} and {b}", expected)
        return a if a.elements > b.elements else b
    value, constant = (b, a) if call.constant[0] else (a, b)
    try:
        fits = np.broadcast_shapes(value.shape, constant.shape) == value.shape
    except ValueError:
        fits = False
    require(fits, "shape of the constant", constant, f"one that broadcasts to {value}")
    return value


def _arithmetic(function: Callable[..., Any]) -> Callable[[Sequence[Array], Call], Array]:
    def compute(inputs: Sequence[Array], call: Call) -> Array:
        a, b = inputs
        with np.errstate(all="ignore"):
            return np.asarray(function(a, b), dtype=np.float32)

    return compute


def _infer_float(call: Call) -> TensorType:
    require_dtype("x", call.types[0], DType.F32)
    return call.types[0]


def _abs(inputs: Sequence[Array], call: Call) -> Array:
    return np.abs(inputs[0])


def _relu(inputs: Sequence[Array], call: Call) -> Array:
    x = inputs[0]
    return np.where(x < 0, np.float32(0), x)


def _infer_prelu(call: Call) -> TensorType:
    x, slope = call.types
    require_dtype("x", x, DType.F32)
    channels = require_channels("x", x)
    if slope.shape != (1,):
        require_type("slope", slope, DType.F32, channels)
    require_dtype("slope", slope, DType.F32)
    return x


def _prelu(inputs: Sequence[Array], call: Call) -> Array:
    x, slope = inputs
    with np.errstate(all="ignore"):
        return np.where(x >= 0, x, slope * x)


def _infer_hardtanh(call: Call) -> TensorType:
    for name in ("min", "max"):
        value = call.number(name)
        require(abs(value) <= FLOAT32_MAX, f"attribute {name}", value, "a number in float32's range")
    if call.number("min") > call.number("max"):
        raise ProgramError(
            f"attributes min and max: found min {call.number('min')} > max {call.number('max')}, "
            "expected min <= max"
        )
    return _infer_float(call)


def _hardtanh(inputs: Sequence[Array], call: Call) -> Array:
    x, low, high = inputs[0], np.float32(call.number("min")), np.float32(call.number("max"))
    return np.where(x < low, low, np.where(x > high, high, x))


_X = Operand("x")
_AB = (Operand("a", Role.EITHER), Operand("b", Role.EITHER))
_FLOAT = "it works on float32 values"


def _arithmetic_op(name: str, symbol: str, function: Callable[..., Any]) -> Op:
    return Op(
        name,
        f"a f32, b f32 → f32. y = a {symbol} b element by element, rounded once to float32. At least one "
        "operand is a value. Two values have the same shape, or the same leading axes and one of them a "
        "single channel, which then meets each channel of the other; a constant may have any shape that "
        "broadcasts to the value's shape of one sample as NumPy does (trailing axes aligned).",
        _AB,
        _infer_arithmetic,
        _arithmetic(function),
        why_not_one_bit=_FLOAT,
    )


ELEMENTWISE_OPS = (
    Op(
        "sign",
        "x f32[..., C] → bits[..., C]. y = +1 where x >= 0 (so also for 0.0 and −0.0), else −1.",
        (_X,),
        _infer_sign,
        _sign,
    ),
    Op(
        "threshold",
        "x i32[..., C], thresholds const i32[C], flip const bits[C] → bits[..., C]. "
        "y[c] is +1 where (x[c] >= thresholds[c]) xor (flip[c] is +1), else −1. A threshold of −2^31 is "
        "always reached, so it makes a constant: +1, or −1 with flip.",
        (_X, Operand("thresholds", Role.CONST), Operand("flip", Role.CONST)),
        _infer_threshold,
        _threshold,
    ),
    Op(
        "to_float",
        "x i32, u8 or bits → f32 of the same shape: the same number (±1 for bits), rounded to nearest, ties "
        "to even, where an i32 beyond ±2^24 needs it.",
        (_X,),
        _infer_to_float,
        _to_float,
        why_not_one_bit="it turns integers into float32",
    ),
    Op(
        "scale_pixels",
        "x u8 → f32 of the same shape. y = (2x − 255)/256, exact.",
        (_X,),
        _infer_scale_pixels,
        _scale_pixels,
        why_not_one_bit="it turns bytes into float32",
    ),
    Op(
        "affine",
        "x f32[..., C], scale const f32[C], shift const f32[C] → f32[..., C]. y = x·scale[c] + shift[c] as "
        "one fused multiply-add: rounded once to float32.",
        (_X, Operand("scale", Role.CONST), Operand("shift", Role.CONST)),
        _infer_affine,
        _affine,
        why_not_one_bit=_FLOAT,
    ),
    _arithmetic_op("add", "+", np.add),
    _arithmetic_op("sub", "−", np.subtract),
    _arithmetic_op("mul", "·", np.multiply),
    _arithmetic_op("div", "/", np.divide),
    Op(
        "abs",
        "x f32 → f32 of the same shape. y = |x|: the sign bit is cleared.",
        (_X,),
        _infer_float,
        _abs,
        why_not_one_bit=_FLOAT,
    ),
    Op(
        "relu",
        "x f32 → f32 of the same shape. y = 0 where x < 0, else x (so −0.0 and NaN stay, as in PyTorch).",
        (_X,),
        _infer_float,
        _relu,
        why_not_one_bit=_FLOAT,
    ),
    Op(
        "prelu",
        "x f32[..., C], slope const f32[C] or f32[1] → f32[..., C]. y = x where x >= 0, else slope·x rounded "
        "to float32.",
        (_X, Operand("slope", Role.CONST)),
        _infer_prelu,
        _prelu,
        why_not_one_bit=_FLOAT,
    ),
    Op(
        "hardtanh",
        "x f32, attributes min and max (floats within float32's range, min <= max) → f32 of the same shape. "
        "y = min where x < min, max where x > max, else x, with min and max rounded to float32.",
        (_X,),
        _infer_hardtanh,
        _hardtanh,
        attrs={"min": AttrKind.FLOAT, "max": AttrKind.FLOAT},
        why_not_one_bit=_FLOAT,
    ),
)
