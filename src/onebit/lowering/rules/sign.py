"""Rules for signs: the marker operators of onebit.nn, and signs written by hand as comparisons."""

from __future__ import annotations

from typing import Any

import torch

from onebit.lowering.capture.captured import TorchCall
from onebit.lowering.emit.context import Context, lowers
from onebit.lowering.rules.arithmetic import arithmetic
from onebit.lowering.values.few_numbers import is_scalar, pointwise
from onebit.lowering.values.kinds import Bytes, Floats, Known, Padded, Signs, Sums, Value

_PLUS_MINUS = torch.tensor([-1.0, 1.0])


@lowers("onebit.sign.default", padded=True)
def sign(context: Context, call: TorchCall, x: Value | Padded) -> Value | Padded:
    """+1 where x >= 0, else −1."""
    if isinstance(x, Padded):
        signs = sign(context, call, x.value)
        assert isinstance(signs, (Floats, Sums, Signs, Bytes))
        return Padded(signs, x.padding, 1.0 if x.fill >= 0 else -1.0)
    if isinstance(x, Known):
        return Known(call.function(x.tensor))
    if isinstance(x, Signs) and x.pair.dtype is torch.float32 and bool(x.pair[0] < 0 <= x.pair[1]):
        return Signs(x.name, _PLUS_MINUS)
    return Signs(_sign_bits(context, context.floats(x)), _PLUS_MINUS)


def _sign_bits(context: Context, floats: str) -> str:
    if not context.builder.type_of(floats).shape:
        context.refuse("the sign of a single number a sample", "keep an axis: x.view(x.shape[0], 1)")
    return context.node("sign", floats)


@lowers("onebit.scale_pixels.default")
def scale_pixels(context: Context, call: TorchCall, x: Value) -> Value:
    """Bytes to (2x − 255)/256."""
    if not isinstance(x, Bytes) or x.floats is not None:
        context.refuse("ScalePixels on something other than the bytes of an input", "put ScalePixels first")
    return Bytes(x.name, call.function(x.table), context.node("scale_pixels", x.name))


# name: (are the sides swapped?, the bit of sign(left − right) for which the comparison holds).
# x >= y exactly where x − y >= 0, also for subnormal differences; x > y is the opposite of y >= x.
_COMPARISONS = {"ge": (False, True), "lt": (False, False), "le": (True, True), "gt": (True, False)}


@lowers(*(f"aten.{name}.{kind}" for name in _COMPARISONS for kind in ("Scalar", "Tensor")))
def compare(context: Context, call: TorchCall, a: Any, b: Any) -> Value:
    """a >= b and its kin, as a pair of bools on the bit of a sign."""
    done = pointwise(call, a, b)
    if done is not None:
        return done
    swapped, holds_at = _COMPARISONS[call.op.split(".")[1]]
    left, right = (b, a) if swapped else (a, b)
    bits = _sign_bits(context, _difference(context, left, right))
    return Signs(bits, torch.tensor([not holds_at, holds_at]))


def _difference(context: Context, a: Any, b: Any) -> str:
    """An f32 value that is >= 0 exactly where a >= b."""
    if _is_zero(b):
        return context.floats(a)
    if _is_zero(a):
        return context.floats(arithmetic(context, "mul", b, -1.0))
    return context.floats(arithmetic(context, "sub", a, b))


def _is_zero(operand: Any) -> bool:
    return is_scalar(operand) and bool((operand.tensor if isinstance(operand, Known) else operand) == 0)


@lowers("aten.where.self", "aten.where.Scalar", "aten.where.ScalarSelf", "aten.where.ScalarOther")
def where(context: Context, call: TorchCall, condition: Value, a: Any, b: Any) -> Value:
    """One of two numbers, by a comparison."""
    done = pointwise(call, condition, a, b)
    if done is None:
        context.refuse(
            "torch.where chooses between values, and a Program only chooses between two numbers",
            "use it for signs, as in torch.where(x >= 0, 1.0, -1.0), and ReLU, PReLU or clamp otherwise",
        )
    return done


@lowers("aten.logical_not.default", "aten.bitwise_not.default")
def negate(context: Context, call: TorchCall, x: Value) -> Value:
    """The opposite of a comparison."""
    done = pointwise(call, x)
    if done is None:
        context.refuse("a logical operation on numbers", "apply it to a comparison, as in ~(x >= 0)")
    return done


@lowers("aten._to_copy.default", "aten.to.dtype")
def cast(context: Context, call: TorchCall, x: Value, *args: Any, **kwargs: Any) -> Value:
    """A change of dtype: of a comparison, or from bytes to float32."""
    if call.result is None:
        context.refuse("a cast to an unknown dtype", "compute in float32")
    dtype = call.result.dtype
    if isinstance(x, Signs):
        return Signs(x.name, x.pair.to(dtype))
    if isinstance(x, Known):
        return Known(x.tensor.to(dtype), x.hint)
    if dtype is not torch.float32:
        context.refuse(f"a cast to {dtype}", "compute in float32")
    if isinstance(x, Bytes) and x.floats is None:
        return Bytes(x.name, x.table.to(torch.float32), context.node("to_float", x.name))
    return x


@lowers("aten.full_like.default", "aten.ones_like.default", "aten.zeros_like.default")
def like(context: Context, call: TorchCall, x: Value, fill: float | None = None, **kwargs: Any) -> Value:
    """A tensor of one number; the number is all that matters."""
    default = 1 if call.op.startswith("aten.ones") else 0
    dtype = call.result.dtype if call.result is not None else torch.float32
    return Known(torch.tensor(default if fill is None else fill, dtype=dtype))
