"""How large a value of a Program can be, and whether it can be NaN.

NaN never comes in, so it can only arise: from ∞ − ∞, 0·∞, 0/0. Most values before a sign are sums of bits
times finite numbers, far from that, and there x < y is the opposite of x >= y. All is read off the facts of
the ops: an integer product tells its sums, and a monotone op is largest at one end of its input's range.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod

import numpy as np

from onebit.program import DType, TensorType
from onebit.program.ops import Call, Constants, Kind, Op

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_BY_TYPE = {DType.BITS: 1.0, DType.U8: 255.0}


def of_input(type_: TensorType) -> float:
    """The largest magnitude of an input; infinity is allowed, NaN is refused."""
    return _BY_TYPE.get(type_.dtype, inf)


def of_node(
    op: Op, call: Call, sizes: Sequence[float | None], constants: Constants, result: TensorType
) -> float | None:
    """The largest magnitude of a node's result, ∞ if it can overflow; None if it may be NaN or is unknown.

    sizes: of the operands that are values, in order.
    """
    if result.dtype in _BY_TYPE:
        return _BY_TYPE[result.dtype]
    if op.product is not None and op.product.sums is not None:
        return float(max(map(abs, op.product.sums(call))))
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        return None
    if op.selects:
        return max(known)
    if op.is_float_product:
        weights = constants[1]
        largest = 1.0 if weights is None or not weights.size else float(np.abs(weights).max())
        return _finite(prod(call.types[1].shape[1:]) * known[0] * largest)
    if op.kind in (Kind.POOL, Kind.CHANNEL_REDUCTION):  # a mean: its sum must be finite
        return None if _finite(call.types[0].elements * known[0]) is None else known[0]
    return _at_the_ends(op, call, known[0], constants)


def _at_the_ends(op: Op, call: Call, size: float, constants: Constants) -> float | None:
    found = op.monotone(constants) if op.is_elementwise else None
    if found is None:
        return None
    rank = len(call.types[found.operand].shape)
    ends = np.array([-size, 0, size], np.float32).reshape(3, *[1] * rank)  # 0 for 0/0, which no end shows
    operands = [ends if constant is None else constant for constant in constants]
    with np.errstate(all="ignore"):
        largest = float(np.abs(op.compute(operands, call)).max())
    return None if np.isnan(largest) else largest


def _finite(bound: float) -> float | None:
    """A bound on a sum, if no partial sum, however rounded, overflows."""
    return bound if bound <= _FLOAT32_MAX / 2 else None
