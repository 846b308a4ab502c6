"""Ops that treat each element alone: signs, thresholds, conversions, float arithmetic, activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from onebit.errors import ProgramError
from onebit.program.numerics import fma
from onebit.program.ops.definition import (
    AttrKind,
    Op,
    Operand,
    Role,
    require,
    require_channels,
    require_dtype,
    require_type,
)
from onebit.program.ops.facts import (
    EXACT,
    FLOAT_MAC,
    NO_ARITHMETIC,
    Arithmetic,
    Call,
    Constants,
    FloatForm,
    FloatKind,
    Kind,
    Monotone,
    Operations,
    ScaleShift,
    never_scale_shift,
    not_monotone,
    rises,
)
from onebit.program.tensors import Array, DType, TensorType

ScaleShiftOf = Callable[[Constants], ScaleShift | None]
MonotoneOf = Callable[[Constants], Monotone | None]
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


def _hardswish(inputs: Sequence[Array], call: Call) -> Array:
    x = inputs[0]
    with np.errstate(all="ignore"):
        moved = x + np.float32(3)
        clipped = np.where(moved < 0, np.float32(0), np.where(moved > 6, np.float32(6), moved))
        return np.asarray(x * clipped / np.float32(6))


def _affine_form(constants: Constants) -> ScaleShift | None:
    return ScaleShift(0, constants[1], constants[2])


def _with_constant(form: Callable[[Array, bool], ScaleShift | None]) -> ScaleShiftOf:
    """The form of an op of two operands; `form` takes the constant, and whether it stands second."""

    def of(constants: Constants) -> ScaleShift | None:
        a, b = constants
        if b is not None:
            return form(b, True)
        return form(a, False) if a is not None else None

    return of


def _sum_form(c: Array, second: bool) -> ScaleShift | None:
    return ScaleShift(0 if second else 1, None, c)


def _difference_form(c: Array, second: bool) -> ScaleShift | None:
    return ScaleShift(0, None, np.asarray(-c)) if second else ScaleShift(1, np.array([-1], np.float32), c)


def _product_form(c: Array, second: bool) -> ScaleShift | None:
    return ScaleShift(0 if second else 1, c, None)


def _quotient_form(c: Array, second: bool) -> ScaleShift | None:
    """x / c is x·(1/c) where c is a power of two whose reciprocal is one too; c / x is no scale."""
    if not second:
        return None
    mantissa, exponent = np.frexp(c)  # c = ±0.5·2^exponent; 2^(1 − exponent) shall be a normal number
    exact = np.all(np.abs(mantissa) == 0.5) and np.all(np.abs(exponent - 1) <= 126)
    with np.errstate(all="ignore"):
        return ScaleShift(0, np.asarray(np.float32(1) / c), None, bool(exact))


def _scaled_monotone(form: ScaleShiftOf) -> MonotoneOf:
    """An op that scales and shifts rises where it scales by no negative number."""

    def of(constants: Constants) -> Monotone | None:
        found = form(constants)
        if found is None:
            return None
        return Monotone(found.operand, found.scale is None or bool((found.scale >= 0).all()))

    return of


def _threshold_monotone(constants: Constants) -> Monotone | None:
    flip = constants[2]
    return None if flip is None else Monotone(0, bool((flip < 0).all()))


def _prelu_monotone(constants: Constants) -> Monotone | None:
    slope = constants[1]
    return Monotone(0, True) if slope is not None and bool((slope >= 0).all()) else None


_X = Operand("x")
_AB = (Operand("a", Role.EITHER), Operand("b", Role.EITHER))
_ADD, _MULTIPLY = Operations(float_adds=1), Operations(float_multiplies=1)
_FLOAT = "it works on float32 values"


def _arithmetic_op(
    name: str,
    symbol: str,
    function: Callable[..., Any],
    operations: Operations,
    form: Callable[[Array, bool], ScaleShift | None],
) -> Op:
    scale_shift = _with_constant(form)
    return Op(
        name=name,
        definition=(
            f"a f32, b f32 → f32. y = a {symbol} b element by element, rounded once to float32. At least one "
            "operand is a value. Two values have the same shape, or the same leading axes and one of them a "
            "single channel, which then meets each channel of the other; a constant may have any shape that "
            "broadcasts to the value's shape of one sample as NumPy does (trailing axes aligned)."
        ),
        operands=_AB,
        infer=_infer_arithmetic,
        compute=_arithmetic(function),
        kind=Kind.ELEMENTWISE,
        product=None,
        arithmetic=Arithmetic(operations),
        monotone=_scaled_monotone(scale_shift),
        scale_shift=scale_shift,
        selects=False,
        tolerance=EXACT,
        float_form=FloatForm(FloatKind.BINARY, name, name.capitalize()),
        why_not_one_bit=_FLOAT,
    )


ELEMENTWISE_OPS = (
    Op(
        name="sign",
        definition=("x f32[..., C] → bits[..., C]. y = +1 where x >= 0 (so also for 0.0 and −0.0), else −1."),
        operands=(_X,),
        infer=_infer_sign,
        compute=_sign,
        kind=Kind.ELEMENTWISE,
        product=None,
        arithmetic=NO_ARITHMETIC,
        monotone=rises,
        scale_shift=never_scale_shift,
        selects=False,
        tolerance=EXACT,
        float_form=FloatForm(FloatKind.SIGN),
        why_not_one_bit="",
    ),
    Op(
        name="threshold",
        definition=(
            "x i32[..., C], thresholds const i32[C], flip const bits[C] → bits[..., C]. y[c] is +1 where "
            "(x[c] >= thresholds[c]) xor (flip[c] is +1), else −1. A threshold of −2^31 is always reached, "
            "so it makes a constant: +1, or −1 with flip."
        ),
        operands=(_X, Operand("thresholds", Role.CONST), Operand("flip", Role.CONST)),
        infer=_infer_threshold,
        compute=_threshold,
        kind=Kind.ELEMENTWISE,
        product=None,
        arithmetic=Arithmetic(Operations(int32_adds=1), as_float32=FLOAT_MAC),
        monotone=_threshold_monotone,
        scale_shift=never_scale_shift,
        selects=False,
        tolerance=EXACT,
        float_form=FloatForm(FloatKind.LEVEL),
        why_not_one_bit="",
    ),
    Op(
        name="to_float",
        definition=(
            "x i32, u8 or bits → f32 of the same shape: the same number (±1 for bits), rounded to nearest, "
            "ties to even, where an i32 beyond ±2^24 needs it."
        ),
        operands=(_X,),
        infer=_infer_to_float,
        compute=_to_float,
        kind=Kind.ELEMENTWISE,
        product=None,
        arithmetic=NO_ARITHMETIC,
        monotone=rises,
        scale_shift=never_scale_shift,
        selects=False,
        tolerance=EXACT,
        float_form=FloatForm(FloatKind.SAME),
        why_not_one_bit="it turns integers into float32",
    ),
    Op(
        name="scale_pixels",
        definition=("x u8 → f32 of the same shape. y = (2x − 255)/256, exact."),
        operands=(_X,),
        infer=_infer_scale_pixels,
        compute=_scale_pixels,
        kind=Kind.ELEMENTWISE,
        product=None,
        arithmetic=Arithmetic(FLOAT_MAC),
        monotone=rises,
        scale_shift=never_scale_shift,
        selects=False,
        tolerance=EXACT,
        float_form=FloatForm(FloatKind.SCALE_PIXELS),
        why_not_one_bit="it turns bytes into float32",
    ),
    Op(
        name="affine",
        definition=(
            "x f32[..., C], scale const f32[C], shift const f32[C] → f32[..., C]. y = x·scale[c] + shift[c] "
            "as one fused multiply-add: rounded once to float32."
        ),
        operands=(_X, Operand("scale", Role.CONST), Operand("shift", Role.CONST)),
        infer=_infer_affine,
        compute=_affine,
        kind=Kind.ELEMENTWISE,
        product=None,
        arithmetic=Arithmetic(FLOAT_MAC),
        monotone=_scaled_monotone(_affine_form),
        scale_shift=_affine_form,
        selects=False,
        tolerance=EXACT,
        float_form=FloatForm(FloatKind.SCALE_SHIFT),
        why_not_one_bit=_FLOAT,
    ),
    _arithmetic_op("add", "+", np.add, _ADD, _sum_form),
    _arithmetic_op("sub", "−", np.subtract, _ADD, _difference_form),
    _arithmetic_op("mul", "·", np.multiply, _MULTIPLY, _product_form),
    _arithmetic_op("div", "/", np.divide, _MULTIPLY, _quotient_form),
    Op(
        name="abs",
        definition=("x f32 → f32 of the same shape. y = |x|: the sign bit is cleared."),
        operands=(_X,),
        infer=_infer_float,
        compute=_abs,
        kind=Kind.ELEMENTWISE,
        product=None,
        arithmetic=NO_ARITHMETIC,
        monotone=not_monotone,
        scale_shift=never_scale_shift,
        selects=False,
        tolerance=EXACT,
        float_form=FloatForm(FloatKind.FUNCTION, "abs", "Abs"),
        why_not_one_bit=_FLOAT,
    ),
    Op(
        name="relu",
        definition=(
            "x f32 → f32 of the same shape. y = 0 where x < 0, else x (so −0.0 and NaN stay, as in PyTorch)."
        ),
        operands=(_X,),
        infer=_infer_float,
        compute=_relu,
        kind=Kind.ELEMENTWISE,
        product=None,
        arithmetic=NO_ARITHMETIC,
        monotone=rises,
        scale_shift=never_scale_shift,
        selects=False,
        tolerance=EXACT,
        float_form=FloatForm(FloatKind.FUNCTION, "nn.functional.relu", "Relu"),
        why_not_one_bit=_FLOAT,
    ),
    Op(
        name="prelu",
        definition=(
            "x f32[..., C], slope const f32[C] or f32[1] → f32[..., C]. y = x where x >= 0, else slope·x "
            "rounded to float32."
        ),
        operands=(_X, Operand("slope", Role.CONST)),
        infer=_infer_prelu,
        compute=_prelu,
        kind=Kind.ELEMENTWISE,
        product=None,
        arithmetic=Arithmetic(_MULTIPLY),
        monotone=_prelu_monotone,
        scale_shift=never_scale_shift,
        selects=False,
        tolerance=EXACT,
        float_form=FloatForm(FloatKind.PRELU),
        why_not_one_bit=_FLOAT,
    ),
    Op(
        name="hardtanh",
        definition=(
            "x f32, attributes min and max (floats within float32's range, min <= max) → f32 of the same "
            "shape. y = min where x < min, max where x > max, else x, with min and max rounded to float32."
        ),
        operands=(_X,),
        infer=_infer_hardtanh,
        compute=_hardtanh,
        kind=Kind.ELEMENTWISE,
        product=None,
        arithmetic=NO_ARITHMETIC,
        monotone=rises,
        scale_shift=never_scale_shift,
        selects=False,
        tolerance=EXACT,
        float_form=FloatForm(FloatKind.FUNCTION, "nn.functional.hardtanh", "Clip"),
        attrs={"min": AttrKind.FLOAT, "max": AttrKind.FLOAT},
        why_not_one_bit=_FLOAT,
    ),
    Op(
        name="hardswish",
        definition=(
            "x f32 → f32 of the same shape. y = x·min(max(x + 3, 0), 6)/6, the sum, the product and the "
            "quotient each rounded to float32 (as in PyTorch; −∞ gives NaN)."
        ),
        operands=(_X,),
        infer=_infer_float,
        compute=_hardswish,
        kind=Kind.ELEMENTWISE,
        product=None,
        arithmetic=Arithmetic(Operations(float_adds=1, float_multiplies=2)),
        monotone=not_monotone,
        scale_shift=never_scale_shift,
        selects=False,
        tolerance=EXACT,
        float_form=FloatForm(
            FloatKind.FUNCTION,
            "nn.functional.hardswish",
            "HardSwish",
            (("Add", "x", 3.0), ("Clip", "_", 0.0, 6.0), ("Mul", "x", "_"), ("Div", "_", 6.0)),
        ),
        why_not_one_bit=_FLOAT,
    ),
)
