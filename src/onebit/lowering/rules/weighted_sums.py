"""Products with stored weights, in matrices and convolutions: which of the four forms of an op fits."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import NamedTuple

import numpy as np
import torch

from onebit.lowering.emit.context import Context
from onebit.lowering.rules.two_values import TwoValues, two_values
from onebit.lowering.values.byte_grid import grid_of
from onebit.lowering.values.kinds import Bytes, Floats, Known, Signs, Sums, Value
from onebit.program.tensors import Array

_INT32_MAX = 2**31 - 1


MakeNode = Callable[..., str]


class Ops(NamedTuple):
    """The four forms of one op: by what it sums."""

    bits: str  # signs × signs
    bytes: str  # bytes × signs
    floats: str  # floats × signs
    real: str  # floats × floats


def checked_weights(context: Context, weight: Known) -> Array:
    """The weights as float32; refuses NaN and infinity."""
    array = weight.tensor.detach().to(torch.float32).numpy()
    if not np.isfinite(array).all():
        context.refuse("its weights hold NaN or infinity", "train again or repair them; a NaN has no sign")
    return array


def weighted(
    context: Context,
    x: Value,
    weights: Array,
    weight: Known,
    ops: Ops,
    node: MakeNode,
    fill: float | None = None,
) -> Value:
    """x times weights (N, ...) in the narrowest form. Rows of ±α become signs, and α a factor of its own.

    weight: where the weights come from; they are its numbers as x lies.
    node: makes a node of one of the `ops`, like `Context.node`; of `bits` with padding_value if there is a
    `fill`, the number outside a padded image.
    """
    hint = weight.hint or "weight"
    magnitude = _magnitudes(weights)
    if magnitude is None or not (weight.from_sign or _look_one_bit(weights, x)):
        return Floats(node(ops.real, context.floats(x), context.builder.floats(weights, hint)))
    positive = weights > 0
    k = prod(weights.shape[1:])
    split = two_values(x, k, fill)
    if isinstance(x, Signs) and split is not None:
        bits = context.builder.signs(positive if split.half > 0 else ~positive, hint)
        outside = {} if fill is None else {"padding_value": int(split.sign_of(fill))}
        row_sums = np.where(positive, 1.0, -1.0).reshape(len(weights), -1).sum(axis=1)
        product = _joined(context, Sums(node(ops.bits, x.name, bits, **outside)), split, row_sums)
    else:
        product = _unsigned_product(context, x, context.builder.signs(positive, hint), k, ops, node)
    if (magnitude == 1).all():
        return product
    # Rows α·(±1), the scale multiplied in by hand: taken out again, the sum is exact and α rounds once.
    scale = context.builder.floats(magnitude, "scale")
    return Floats(context.node("mul", context.floats(product), scale))


def _joined(context: Context, sums: Sums, split: TwoValues, row_sums: Array) -> Value:
    """|half|·sums + middle·row_sums; the sums themselves for ±1."""
    half = abs(split.half)
    if (half, split.middle) == (1.0, 0.0):
        return sums
    name = context.floats(sums)
    if half != 1:
        name = context.node("mul", name, context.builder.floats(np.array([half]), "half"))
    if split.middle != 0:
        name = context.node("add", name, context.builder.floats(split.middle * row_sums, "row_sums"))
    return Floats(name)


def _magnitudes(weights: Array) -> Array | None:
    """α of each row, if every row holds ±α only, α > 0."""
    rows = np.abs(weights.reshape(len(weights), -1))
    first = rows[:, 0]
    return first if (first > 0).all() and (rows == first[:, None]).all() else None


def _look_one_bit(weights: Array, x: Value) -> bool:
    """Are rows of ±α one-bit weights, though no sign is seen to have made them?

    A guess, for weights that were stored as ±α. A row of one number is always ±α and tells nothing, and one
    positive number other than 1 everywhere is a mean over a window, no layer of signs.
    """
    first = weights.flat[0]
    is_mean = bool((weights == first).all()) and first > 0 and first != 1
    return prod(weights.shape[1:]) > 1 and (isinstance(x, Signs) or not is_mean)


def _unsigned_product(context: Context, x: Value, bits: str, k: int, ops: Ops, node: MakeNode) -> Value:
    """Bytes or floats times signs."""
    if isinstance(x, Bytes):
        # Exact as an integer sum, then rounded once. So is PyTorch's: in float32 while |sum| <= 2^24 (k up
        # to 65,793 for ScalePixels), beyond by the layer's own float64 (contract, P4). Sums that may leave
        # int32 are floats instead.
        grid = grid_of(x.table)
        if grid is not None and k * (255 * abs(grid.multiplier) + abs(grid.offset)) <= _INT32_MAX:
            name = node(ops.bytes, x.name, bits, multiplier=grid.multiplier, offset=grid.offset)
            return Sums(name, grid.unit)
    return Floats(node(ops.floats, context.floats(x), bits))
