"""Rules for arithmetic and activations: everything that treats each element alone."""

from __future__ import annotations

from math import frexp
from typing import Any

import numpy as np
import torch

from onebit.lowering.capture.captured import TorchCall
from onebit.lowering.emit.context import Context, lowers
from onebit.lowering.values.few_numbers import ValueOrNumber, as_value, is_scalar, pointwise, with_table
from onebit.lowering.values.kinds import Floats, Known, Signs, Value

_FLOAT32_MAX = float(np.finfo(np.float32).max)


def arithmetic(context: Context, op: str, a: ValueOrNumber, b: ValueOrNumber) -> Floats:
    """`op` (add, sub, mul, div) of two operands, at least one of which varies."""
    sample = context.sample()
    operands = _aligned(context, [as_value(a), as_value(b)])
    values = [o for o in operands if not isinstance(o, Known)]
    whole = [o for o in values if context.shape(o) == sample]
    for value in values:
        if not whole or not _meets(context, value, sample):
            context.refuse(
                f"it stretches a value of shape {context.shape(value)} to {sample}; in a Program only "
                "constants and values of one channel broadcast",
                "give both values the same shape",
            )
    layout = context.layout(whole[0])
    names = [
        context.constant(o, sample, layout) if isinstance(o, Known) else context.floats(o) for o in operands
    ]
    return Floats(context.node(op, *names))


def _aligned(context: Context, operands: list[Value]) -> list[Value]:
    """The operands, lying alike: all images, all flattened images of the same sizes, or all plain."""
    layouts = {context.layout(o) for o in operands if not isinstance(o, Known)}
    if len(layouts) == 1:
        return operands
    images = any(layout is not None and not layout.flat for layout in layouts)
    move = context.image if images else context.plain
    return [o if isinstance(o, Known) else move(o) for o in operands]


def _meets(context: Context, value: Value, sample: tuple[int, ...]) -> bool:
    """The value has the shape of the result, or one channel that meets each channel of it."""
    shape, layout = context.shape(value), context.layout(value)
    narrow = (*sample[:-1], 1) if layout is None else (1, *sample[1:])
    return shape in (sample, narrow)


def _binary(
    context: Context, call: TorchCall, op: str, a: ValueOrNumber, b: ValueOrNumber, alpha: float = 1
) -> Value:
    done = pointwise(call, a, b)
    if done is not None:
        return done
    result = arithmetic(context, op, a, b if alpha == 1 else _scaled(context, b, alpha))
    return with_table(call, result, a, b)


def _scaled(context: Context, b: ValueOrNumber, alpha: float) -> Value:
    """alpha·b, where that is exact: PyTorch rounds a + alpha·b once."""
    value = as_value(b)
    if isinstance(value, Known):
        exact = value.tensor.double() * float(np.float32(alpha))  # 48 bits at most
        if torch.equal(exact.float().double(), exact):
            return Known(exact.float(), value.hint)
    if isinstance(value, Known) or abs(frexp(alpha)[0]) != 0.5:
        context.refuse(
            f"an addition or subtraction with alpha={alpha}, which PyTorch computes with one rounding",
            "multiply in a step of its own, as in a + alpha * b",
        )
    return arithmetic(context, "mul", b, alpha)


@lowers("aten.add.Tensor", "aten.add.Scalar")
def add(context: Context, call: TorchCall, a: ValueOrNumber, b: ValueOrNumber, alpha: float = 1) -> Value:
    """a + alpha·b."""
    return _binary(context, call, "add", a, b, alpha)


@lowers("aten.sub.Tensor", "aten.sub.Scalar")
def sub(context: Context, call: TorchCall, a: ValueOrNumber, b: ValueOrNumber, alpha: float = 1) -> Value:
    """a − alpha·b."""
    return _binary(context, call, "sub", a, b, alpha)


@lowers("aten.rsub.Tensor", "aten.rsub.Scalar")
def rsub(context: Context, call: TorchCall, a: ValueOrNumber, b: ValueOrNumber, alpha: float = 1) -> Value:
    """b − alpha·a."""
    done = pointwise(call, a, b)
    if done is not None:
        return done
    scaled = a if alpha == 1 else _scaled(context, a, alpha)
    return with_table(call, arithmetic(context, "sub", b, scaled), a, b)


@lowers("aten.mul.Tensor", "aten.mul.Scalar")
def mul(context: Context, call: TorchCall, a: ValueOrNumber, b: ValueOrNumber) -> Value:
    """a · b."""
    return _binary(context, call, "mul", a, b)


@lowers("aten.div.Tensor", "aten.div.Scalar")
def div(context: Context, call: TorchCall, a: ValueOrNumber, b: ValueOrNumber) -> Value:
    """a / b, true division."""
    return _binary(context, call, "div", a, b)


@lowers("aten.neg.default")
def neg(context: Context, call: TorchCall, x: Value) -> Value:
    """−x, as x · (−1)."""
    return pointwise(call, x) or with_table(call, arithmetic(context, "mul", x, -1.0), x)


@lowers("aten.reciprocal.default")
def reciprocal(context: Context, call: TorchCall, x: Value) -> Value:
    """1 / x."""
    return pointwise(call, x) or arithmetic(context, "div", 1.0, x)


@lowers("aten.abs.default")
def absolute(context: Context, call: TorchCall, x: Value) -> Value:
    """|x|."""
    return pointwise(call, x) or with_table(call, Floats(context.node("abs", context.floats(x))), x)


@lowers("aten.relu.default")
def relu(context: Context, call: TorchCall, x: Value) -> Value:
    """max(x, 0)."""
    return pointwise(call, x) or Floats(context.node("relu", context.floats(x)))


@lowers("aten.hardswish.default")
def hardswish(context: Context, call: TorchCall, x: Value) -> Value:
    """x·min(max(x + 3, 0), 6)/6."""
    return pointwise(call, x) or Floats(context.node("hardswish", context.floats(x)))


@lowers("aten.prelu.default")
def prelu(context: Context, call: TorchCall, x: Value, weight: Value) -> Value:
    """x where x >= 0, else weight·x; PyTorch's channel axis is axis 1."""
    if isinstance(weight, Known) and weight.tensor.numel() != 1 and not isinstance(x, Known):
        x, in_order = context.channels_last(x)
        slopes = in_order(weight.tensor.detach().reshape(-1).numpy())
        weight = Known(torch.from_numpy(slopes), weight.hint)
    return _sloped(context, x, weight)


@lowers("aten.leaky_relu.default")
def leaky_relu(context: Context, call: TorchCall, x: Value, negative_slope: float = 0.01) -> Value:
    """x where x >= 0, else negative_slope·x."""
    return pointwise(call, x, negative_slope) or _sloped(context, x, as_value(negative_slope))


def _sloped(context: Context, x: Value, slope: Value) -> Value:
    if not isinstance(slope, Known):
        context.refuse("its slope depends on the input", "use a stored slope")
    sample = context.sample()
    if not sample:
        context.refuse("PReLU of a single number a sample", "keep an axis: x.view(x.shape[0], 1)")
    flat = slope.tensor.detach().reshape(-1)
    name = context.constant(Known(flat, slope.hint), tuple(flat.shape))
    return Floats(context.node("prelu", context.floats(x), name))


@lowers("aten.hardtanh.default")
def hardtanh(context: Context, call: TorchCall, x: Value, low: float = -1.0, high: float = 1.0) -> Value:
    """min(max(x, low), high)."""
    return clamp(context, call, x, low, high)


@lowers("aten.clamp.default", "aten.clamp.Tensor")
def clamp(context: Context, call: TorchCall, x: Value, min: Any = None, max: Any = None) -> Value:
    """min(max(x, min), max); a bound that is missing becomes the largest float32, but below 0 it is ReLU."""
    if isinstance(x, (Known, Signs)) and (done := pointwise(call, x, *call.args[1:])) is not None:
        return done
    low, high = _bound(context, min, -_FLOAT32_MAX), _bound(context, max, _FLOAT32_MAX)
    if low == 0 and max is None:
        return Floats(context.node("relu", context.floats(x)))  # an infinity stays one
    if not low <= high:
        context.refuse(f"a clamp to [{low}, {high}]", "use min <= max")
    return Floats(context.node("hardtanh", context.floats(x), min=low, max=high))


@lowers("aten.relu6.default")
def relu6(context: Context, call: TorchCall, x: Value) -> Value:
    """min(max(x, 0), 6)."""
    return pointwise(call, x) or clamp(context, call, x, 0.0, 6.0)


def _bound(context: Context, bound: Any, missing: float) -> float:
    if bound is None:
        return missing
    if not is_scalar(bound):
        context.refuse("a clamp whose bounds are tensors", "use numbers as bounds")
    number = float(bound.tensor) if isinstance(bound, Known) else float(bound)
    return float(np.float32(np.clip(number, -_FLOAT32_MAX, _FLOAT32_MAX)))


@lowers("aten.clamp_min.default")
def clamp_min(context: Context, call: TorchCall, x: Value, min: Any) -> Value:
    """max(x, min)."""
    return clamp(context, call, x, min, None)


@lowers("aten.clamp_max.default")
def clamp_max(context: Context, call: TorchCall, x: Value, max: Any) -> Value:
    """min(x, max)."""
    return clamp(context, call, x, None, max)
