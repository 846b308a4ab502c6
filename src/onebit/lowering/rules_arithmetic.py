"""Rules for arithmetic and activations: everything that treats each element alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from onebit.lowering.captured import Call
from onebit.lowering.lower import Context, lowers
from onebit.lowering.values import Bytes, Floats, Known, Signs, Value

_FLOAT32_MAX = float(np.finfo(np.float32).max)
Operand = Value | int | float


def as_value(operand: Operand) -> Value:
    """A Python number as a Known."""
    if isinstance(operand, (int, float)):
        return Known(torch.tensor(float(operand), dtype=torch.float64).to(torch.float32))
    return operand


def is_scalar(operand: object) -> bool:
    """A number, or a constant with one element."""
    return isinstance(operand, (int, float)) or (isinstance(operand, Known) and operand.tensor.numel() == 1)


def pointwise(context: Context, call: Call, *operands: Any) -> Value | None:
    """The call on a pair (Signs), a table (Bytes) or constants, evaluated by PyTorch itself; None if it is none of these.

    Bytes keep their float form beside the table, so the caller adds the node that computes it.
    """
    moving = [o for o in operands if isinstance(o, (Signs, Bytes))]
    rest = [o for o in operands if not isinstance(o, (Signs, Bytes)) and not is_scalar(o)]
    if (
        all(isinstance(o, Known) or not isinstance(o, (Floats, Signs, Bytes)) for o in operands)
        and not moving
    ):
        if all(isinstance(o, (Known, int, float)) for o in operands):
            return Known(_evaluate(context, call, *operands))
        return None
    if rest or not moving:
        return None
    first = moving[0]
    if any(type(o) is not type(first) or o.name != first.name for o in moving):
        return None
    if isinstance(first, Signs):
        return Signs(first.name, _evaluate(context, call, *operands))
    return None


def _evaluate(context: Context, call: Call, *operands: Any) -> torch.Tensor:
    def plain(o: Any) -> Any:
        if isinstance(o, Known):
            return o.tensor.reshape(()) if o.tensor.numel() == 1 else o.tensor
        if isinstance(o, Signs):
            return o.pair
        return o.table if isinstance(o, Bytes) else o

    kwargs = {k: plain(v) for k, v in call.kwargs.items()}
    with torch.no_grad():
        result: torch.Tensor = call.function(*(plain(o) for o in operands), **kwargs)
    return result


def with_table(context: Context, call: Call, source: Value, result: Value, *operands: Any) -> Value:
    """`result`, still known as a function of bytes if `source` is one and the other operands are scalars."""
    if not isinstance(source, Bytes) or source.floats is None or not isinstance(result, Floats):
        return result
    if not all(o is source or is_scalar(o) for o in operands):
        return result
    table = _evaluate(context, call, *operands)
    return Bytes(source.name, table, result.name) if table.dtype is torch.float32 else result


def arithmetic(context: Context, op: str, a: Operand, b: Operand) -> Value:
    """`op` (add, sub, mul, div) of two operands, at least one of which varies."""
    sample = context.sample()
    names = []
    for operand in (as_value(a), as_value(b)):
        if isinstance(operand, Known):
            names.append(context.constant(operand, sample))
            continue
        name = context.floats(operand)
        shape = context.builder.type_of(name).shape
        if shape != sample:
            context.refuse(
                f"it stretches a value of shape {shape} to {sample}; only constants broadcast in a Program",
                "give both values the same shape",
            )
        names.append(name)
    return Floats(context.node(op, *names))


def _binary(context: Context, call: Call, op: str, a: Operand, b: Operand) -> Value:
    done = pointwise(context, call, a, b)
    if done is not None:
        return done
    result = arithmetic(context, op, a, b)
    source = next((o for o in (a, b) if isinstance(o, Bytes)), None)
    return result if source is None else with_table(context, call, source, result, a, b)


@lowers("aten.add.Tensor", "aten.add.Scalar")
def add(context: Context, call: Call, a: Operand, b: Operand, *, alpha: float = 1) -> Value:
    """a + alpha·b."""
    _plain_alpha(context, alpha)
    return _binary(context, call, "add", a, b)


@lowers("aten.sub.Tensor", "aten.sub.Scalar")
def sub(context: Context, call: Call, a: Operand, b: Operand, *, alpha: float = 1) -> Value:
    """a − alpha·b."""
    _plain_alpha(context, alpha)
    return _binary(context, call, "sub", a, b)


@lowers("aten.rsub.Tensor", "aten.rsub.Scalar")
def rsub(context: Context, call: Call, a: Operand, b: Operand, alpha: float = 1) -> Value:
    """b − alpha·a."""
    _plain_alpha(context, alpha)
    done = pointwise(context, call, a, b)
    if done is not None:
        return done
    result = arithmetic(context, "sub", b, a)
    return with_table(context, call, as_value(a), result, a, b)


@lowers("aten.mul.Tensor", "aten.mul.Scalar")
def mul(context: Context, call: Call, a: Operand, b: Operand) -> Value:
    """a · b."""
    return _binary(context, call, "mul", a, b)


@lowers("aten.div.Tensor", "aten.div.Scalar")
def div(context: Context, call: Call, a: Operand, b: Operand) -> Value:
    """a / b, true division."""
    return _binary(context, call, "div", a, b)


@lowers("aten.neg.default")
def neg(context: Context, call: Call, x: Value) -> Value:
    """−x, as x · (−1)."""
    done = pointwise(context, call, x)
    if done is not None:
        return done
    return with_table(context, call, x, arithmetic(context, "mul", x, -1.0), x)


@lowers("aten.reciprocal.default")
def reciprocal(context: Context, call: Call, x: Value) -> Value:
    """1 / x."""
    return pointwise(context, call, x) or arithmetic(context, "div", 1.0, x)


def _plain_alpha(context: Context, alpha: float) -> None:
    if alpha != 1:
        context.refuse(f"an addition or subtraction with alpha={alpha}", "multiply in a step of its own")


@lowers("aten.relu.default")
def relu(context: Context, call: Call, x: Value) -> Value:
    """max(x, 0)."""
    return pointwise(context, call, x) or Floats(context.node("relu", context.floats(x)))


@lowers("aten.prelu.default")
def prelu(context: Context, call: Call, x: Value, weight: Value) -> Value:
    """x where x >= 0, else weight·x; PyTorch's channel axis is axis 1."""
    if not isinstance(weight, Known):
        context.refuse("its slope depends on the input", "use a stored slope")
    sample = context.sample()
    if weight.tensor.numel() != 1 and len(sample) != 1:
        context.refuse(
            f"PReLU with a slope a channel over one sample of shape {sample}", "flatten before PReLU"
        )
    return _sloped(context, x, weight)


@lowers("aten.leaky_relu.default")
def leaky_relu(context: Context, call: Call, x: Value, negative_slope: float = 0.01) -> Value:
    """x where x >= 0, else negative_slope·x."""
    slope = as_value(negative_slope)
    return pointwise(context, call, x, negative_slope) or _sloped(context, x, slope)


def _sloped(context: Context, x: Value, slope: Value) -> Value:
    if not isinstance(slope, Known):
        context.refuse("its slope depends on the input", "use a stored slope")
    flat = Known(slope.tensor.reshape(-1), slope.hint)
    sample = context.sample()
    if not sample:
        context.refuse("PReLU of a single number a sample", "keep an axis: x.view(x.shape[0], 1)")
    return Floats(context.node("prelu", context.floats(x), context.constant(flat, sample)))


@lowers("aten.hardtanh.default")
def hardtanh(context: Context, call: Call, x: Value, low: float = -1.0, high: float = 1.0) -> Value:
    """min(max(x, low), high)."""
    return clamp(context, call, x, low, high)


@lowers("aten.clamp.default", "aten.clamp.Tensor")
def clamp(context: Context, call: Call, x: Value, min: Any = None, max: Any = None) -> Value:
    """min(max(x, min), max); a bound that is missing becomes the largest float32."""
    bounds = []
    for bound, missing in ((min, -_FLOAT32_MAX), (max, _FLOAT32_MAX)):
        if bound is None:
            bounds.append(missing)
        elif is_scalar(bound):
            number = float(bound.tensor) if isinstance(bound, Known) else float(bound)
            bounds.append(float(np.float32(np.clip(number, -_FLOAT32_MAX, _FLOAT32_MAX))))
        else:
            context.refuse("a clamp whose bounds are tensors", "use numbers as bounds")
    if bounds[0] > bounds[1] or any(np.isnan(bounds)):
        context.refuse(f"a clamp to [{bounds[0]}, {bounds[1]}]", "use min <= max")
    if isinstance(x, Signs) and (done := pointwise(context, call, x, *call.args[1:])) is not None:
        return done
    return Floats(context.node("hardtanh", context.floats(x), min=bounds[0], max=bounds[1]))


@lowers("aten.clamp_min.default")
def clamp_min(context: Context, call: Call, x: Value, min: Any) -> Value:
    """max(x, min)."""
    return clamp(context, call, x, min, None)


@lowers("aten.clamp_max.default")
def clamp_max(context: Context, call: Call, x: Value, max: Any) -> Value:
    """min(x, max)."""
    return clamp(context, call, x, None, max)
