"""Rules for signs: the marker operators of onebit.nn, and signs written by hand as comparisons."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from onebit.lowering.capture.captured import TorchCall
from onebit.lowering.emit.context import Context, lowers
from onebit.lowering.rules.arithmetic import arithmetic
from onebit.lowering.values.few_numbers import as_value, is_scalar, pointwise
from onebit.lowering.values.kinds import Bytes, Floats, Known, Padded, Signs, Sums, Value

_PLUS_MINUS = torch.tensor([-1.0, 1.0])
_FALSE_TRUE = torch.tensor([False, True])


@lowers("onebit.sign.default", padded=True)
def sign(context: Context, call: TorchCall, x: Value | Padded) -> Value | Padded:
    """+1 where x >= 0, else −1."""
    if isinstance(x, Padded):
        signs = sign(context, call, x.value)
        assert isinstance(signs, (Floats, Sums, Signs, Bytes))
        return Padded(signs, x.padding, 1.0 if x.fill >= 0 else -1.0)
    if isinstance(x, Known):
        return Known(call.function(x.tensor), x.hint, from_sign=True)
    if isinstance(x, Signs) and x.pair.dtype is torch.float32:
        return Signs(x.name, call.function(x.pair))
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


# name: (are the sides swapped?, is it strict?)
_COMPARISONS = {"ge": (False, False), "lt": (True, True), "le": (True, False), "gt": (False, True)}
_SMALLEST = 2.0**-149


@lowers(*(f"aten.{name}.{kind}" for name in _COMPARISONS for kind in ("Scalar", "Tensor")))
def compare(context: Context, call: TorchCall, a: Any, b: Any) -> Value:
    """a >= b and its kin, as a pair of bools on the bit of a sign.

    a >= b is sign(a − b), exact for subnormal differences too. Where the difference is never NaN, a > b is
    the opposite of b >= a. Of a NaN neither holds, and its sign is −1: there a > b is sign(a − b − 2^-149),
    since no float32 lies between 0 and 2^-149. For a number c, x > c is x >= the next float32 above c, and
    x < c is x <= the one below it.
    """
    done = pointwise(call, a, b)
    if done is not None:
        return done
    swapped, strict = _COMPARISONS[call.op.split(".")[1]]
    larger, smaller = (as_value(b), as_value(a)) if swapped else (as_value(a), as_value(b))
    if not strict:
        return Signs(_sign_bits(context, _difference(context, larger, smaller)), _FALSE_TRUE)
    opposite = _difference(context, smaller, larger)
    if context.builder.never_nan(opposite):
        return Signs(_sign_bits(context, opposite), _FALSE_TRUE.flip(0))
    if (above := _next_float(smaller, torch.inf)) is not None:
        difference = _difference(context, larger, above)
    elif (below := _next_float(larger, -torch.inf)) is not None:
        difference = _difference(context, below, smaller)
    else:
        difference = _difference(context, larger, smaller)
        difference = context.floats(arithmetic(context, "sub", Floats(difference), _SMALLEST))
    return Signs(_sign_bits(context, difference), _FALSE_TRUE)


def _next_float(x: Value, towards: float) -> Known | None:
    """The float32 numbers next to those of a constant; None of a value, and where they are not all finite."""
    if not isinstance(x, Known):
        return None
    tensor = torch.nextafter(x.tensor.detach().to(torch.float32), torch.tensor(towards))
    return Known(tensor) if bool(tensor.isfinite().all()) else None


def _difference(context: Context, a: Value, b: Value) -> str:
    """An f32 value that is >= 0 exactly where a >= b."""
    if _is_zero(b):
        return context.floats(a)
    if _is_zero(a):
        return context.floats(arithmetic(context, "mul", b, -1.0))
    return context.floats(arithmetic(context, "sub", a, b))


def _is_zero(operand: Value) -> bool:
    return isinstance(operand, Known) and is_scalar(operand) and bool(operand.tensor == 0)


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
        return replace(x, tensor=x.tensor.to(dtype))
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
