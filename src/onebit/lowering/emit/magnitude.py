"""How large a value of a Program can be, and whether it can be NaN.

NaN never comes in, so it can only arise: from ∞ − ∞, 0·∞, 0/0. Most values before a sign are sums of bits
times finite numbers, far from that, and there x < y is the opposite of x >= y.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import prod

import numpy as np

from onebit.program import Constant, DType, TensorType
from onebit.program.ops import Call

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_ROUNDING = 1 + 2.0**-20  # more than one operation's
_INPUTS = {DType.U8: 255.0, DType.BITS: 1.0, DType.F32: math.inf}
_SAME = ("to_float", "abs", "relu", "reshape", "permute", "max_pool2d")
_PRODUCTS = ("f32_gemm", "f32_binary_gemm", "f32_conv2d", "f32_binary_conv2d")


def of_input(type_: TensorType) -> float | None:
    """The largest magnitude of an input; infinity is allowed, NaN is refused."""
    return _INPUTS.get(type_.dtype)


def of_constant(constant: Constant) -> tuple[float, float]:
    """(smallest, largest) magnitude of a constant."""
    if constant.type.dtype is DType.BITS or not constant.array.size:
        return 1.0, 1.0
    sizes = np.abs(constant.array)
    return float(sizes.min()), float(sizes.max())


def of_node(op: str, sizes: Sequence[tuple[float, float] | float | None], call: Call) -> float | None:
    """The largest magnitude of a node's result, ∞ if it can overflow; None if it can be NaN or is not known.

    sizes: of each operand, (smallest, largest) of a constant.
    """
    ranges = [
        size if isinstance(size, tuple) else (0.0, math.nan if size is None else size) for size in sizes
    ]
    largest = _largest(op, ranges, call) * _ROUNDING
    if math.isnan(largest):
        return None
    return largest if largest <= _FLOAT32_MAX else math.inf


def _largest(op: str, ranges: Sequence[tuple[float, float]], call: Call) -> float:
    """The bound as a float, NaN where the result can be NaN: Python's own ∞ − ∞ and 0·∞ are NaN too."""
    first = ranges[0][1]
    match op:
        case "sign" | "threshold" | "scale_pixels":
            return 1.0
        case "binary_gemm" | "binary_conv2d":
            return float(prod(call.types[1].shape[1:]))
        case "u8_gemm" | "u8_conv2d":
            step = 255 * abs(call.integer("multiplier")) + abs(call.integer("offset"))
            return float(prod(call.types[1].shape[1:]) * step)
        case _ if op in _SAME:
            return first
        case "hardtanh":
            return max(abs(call.number("min")), abs(call.number("max"))) if first == first else math.nan
        case "concat":
            return max(largest for _, largest in ranges) if not _any_nan(ranges) else math.nan
        case "add" | "sub":
            both = first == math.inf == ranges[1][1]
            return math.nan if both else first + ranges[1][1]
        case "mul":
            return _times(ranges[0], ranges[1])
        case "div":
            if ranges[1][0] > 0:
                return first / ranges[1][0]
            return math.inf if ranges[0][0] > 0 and not _any_nan(ranges) else math.nan  # c / 0 and c / ∞
        case "affine":
            return _times(ranges[0], ranges[1]) + ranges[2][1]
        case "prelu":
            return max(first, _times(ranges[0], ranges[1])) if not _any_nan(ranges) else math.nan
        case _ if op in _PRODUCTS:
            total = prod(call.types[1].shape[1:]) * first * ranges[1][1]
            return total if total <= _FLOAT32_MAX / 2 else math.nan
        case "avg_pool2d" | "channel_mean":
            return first if call.types[0].elements * first <= _FLOAT32_MAX / 2 else math.nan
    return math.nan


def _times(a: tuple[float, float], b: tuple[float, float]) -> float:
    """The largest |a·b|; NaN where 0 can meet ∞."""
    if (a[1] == math.inf and b[0] == 0) or (b[1] == math.inf and a[0] == 0):
        return math.nan
    return a[1] * b[1]


def _any_nan(ranges: Sequence[tuple[float, float]]) -> bool:
    return any(largest != largest for _, largest in ranges)
