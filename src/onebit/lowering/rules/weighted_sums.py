"""Products with stored weights, in matrices and convolutions: which of the four forms of an op fits.

Two values instead of ±1. Let x = middle + half·s with s = ±1; {0, 1} has middle = half = 1/2. Then

    Σ w·x = half·Σ w·s + middle·Σ w

where the first sum is the product of signs and Σ w a number a row. For w = ±1 both are integers, and with
half and middle powers of two (or middle 0) the whole is exact in float32, as is PyTorch's own sum. A tap
outside the image that is `fill` in PyTorch is s = (fill - middle)/half there: zero padding of {0, 1} is -1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from math import prod
from typing import NamedTuple

import numpy as np
import torch

from onebit.lowering.emit.context import Context
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


class Halves(NamedTuple):
    """x = middle + half·s of a Signs whose numbers are like {0, 1} or {-1, 1}, but for a power of two."""

    half: float
    middle: float

    def sign_of(self, fill: float) -> float:
        """The s that stands for `fill`; nothing but -1, 0 and 1 can stand outside an image."""
        return (fill - self.middle) / self.half


def halves(x: object) -> Halves | None:
    """How a product takes x apart, or None where x is no Signs or its numbers are others."""
    if not isinstance(x, Signs) or x.pair.dtype is not torch.float32:
        return None
    low, high = x.pair.double().tolist()
    half, middle = (high - low) / 2, (high + low) / 2
    exact = half > 0 and math.isfinite(half) and math.frexp(half)[0] == 0.5
    return Halves(half, middle) if exact and middle in (-half, 0.0, half) else None


def checked_weights(context: Context, weight: Known) -> Array:
    """The weights as float32; refuses NaN and infinity."""
    array = weight.tensor.detach().to(torch.float32).numpy()
    if not np.isfinite(array).all():
        context.refuse("its weights hold NaN or infinity", "train again or repair them; a NaN has no sign")
    return array


def weighted(context: Context, x: Value, weights: Array, hint: str, ops: Ops, node: MakeNode) -> Value:
    """x times weights (N, ...) in the narrowest form. Rows of ±α become signs, and α a factor of its own.

    node: makes a node of one of the `ops`, like `Context.node`. x is multiplied as it lies.
    """
    hint = hint or "weight"
    magnitude = _magnitudes(weights)
    if magnitude is None or (_is_filter(weights) and not isinstance(x, Signs)):
        return Floats(node(ops.real, context.floats(x), context.builder.floats(weights, hint)))
    bits = context.builder.signs(weights > 0, hint)
    product = _sign_product(context, x, bits, prod(weights.shape[1:]), ops, node)
    split = halves(x)
    if split is not None:
        row_sums = np.where(weights > 0, 1.0, -1.0).reshape(len(weights), -1).sum(axis=1)
        product = _joined(context, product, split, row_sums)
    if (magnitude == 1).all():
        return product
    # Rows α·(±1), the scale multiplied in by hand: taken out again, the sum is exact and α rounds once.
    scale = context.builder.floats(magnitude, "scale")
    return Floats(context.node("mul", context.floats(product), scale))


def _joined(context: Context, sums: Value, split: Halves, row_sums: Array) -> Value:
    """half·sums + middle·row_sums; the sums themselves for ±1."""
    if split == (1.0, 0.0):
        return sums
    name = context.floats(sums)
    if split.half != 1:
        name = context.node("mul", name, context.builder.floats(np.array([split.half]), "half"))
    if split.middle != 0:
        name = context.node("add", name, context.builder.floats(split.middle * row_sums, "row_sums"))
    return Floats(name)


def _magnitudes(weights: Array) -> Array | None:
    """α of each row, if every row holds ±α only, α > 0."""
    rows = np.abs(weights.reshape(len(weights), -1))
    first = rows[:, 0]
    return first if (first > 0).all() and (rows == first[:, None]).all() else None


def _is_filter(weights: Array) -> bool:
    """One positive number other than 1 everywhere: a mean over a window, no layer of signs."""
    return bool((weights == weights.flat[0]).all()) and weights.flat[0] > 0 and weights.flat[0] != 1


def _sign_product(context: Context, x: Value, bits: str, k: int, ops: Ops, node: MakeNode) -> Value:
    if isinstance(x, Signs) and halves(x) is not None:
        return Sums(node(ops.bits, x.name, bits))
    if isinstance(x, Bytes):
        # Exact as an integer sum; so is its float32 form while |sum| <= 2^24 (k up to 65,793 for
        # ScalePixels), and there PyTorch's own float sum is exact too, whatever its order. Beyond, PyTorch
        # rounds on the way, the Program once, at the end. Sums that may leave int32 are floats instead.
        grid = grid_of(x.table)
        if grid is not None and k * (255 * abs(grid.multiplier) + abs(grid.offset)) <= _INT32_MAX:
            name = node(ops.bytes, x.name, bits, multiplier=grid.multiplier, offset=grid.offset)
            return Sums(name, grid.unit)
    return Floats(node(ops.floats, context.floats(x), bits))
