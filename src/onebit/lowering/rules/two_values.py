"""Values of two numbers, as a product takes them apart.

A comparison gives bits s = ±1, and whatever is computed from it by element is x = middle + half·s: ±1 has
half = 1 and middle = 0, {0, 1} has half = middle = 1/2, and half < 0 where the bit +1 stands for the smaller
number. So

    Σ w·x = half·Σ w·s + middle·Σ w = |half|·Σ (±w)·s + middle·Σ w

where the first sum is a product of signs and Σ w one number a row. Let both numbers be integers times a power
of two u, i·u and j·u. For w = ±1 every partial sum of PyTorch's is an integer times u of at most
K·max(|i|, |j|), and each step above an integer times u/2 of at most K·(|i| + |j|): if that is below 2^24, all
are exact and equal. For ±α (middle = 0) the sum of signs is exact and α rounds once, while PyTorch rounds on
the way: within the tolerance of a float product, and equal where α is a power of two. Other pairs would round
twice and stay float32.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from onebit.lowering.emit.context import Context
from onebit.lowering.values.byte_grid import lowest_bit
from onebit.lowering.values.kinds import Signs

_FLOAT32_EXACT = 2**24


class TwoValues(NamedTuple):
    """x = middle + half·s, with s = ±1 the bits."""

    half: float
    middle: float

    def sign_of(self, number: float) -> float:
        """The s that stands for `number`; nothing but -1, 0 and 1 can stand outside an image."""
        return (number - self.middle) / self.half


def two_values(x: object, k: int, fill: float | None) -> TwoValues | None:
    """How a product over k columns takes x apart; None where x is no Signs, or where that would not be exact.

    fill: the number outside the image, None where nothing is padded.
    """
    if not isinstance(x, Signs) or x.pair.dtype is not torch.float32:
        return None
    low, high = x.pair.double().tolist()
    split = TwoValues((high - low) / 2, (high + low) / 2)
    if split.half == 0 or not math.isfinite(split.half) or not _splits_exactly(low, high, split, k):
        return None
    return split if fill is None or split.sign_of(fill) in (-1, 0, 1) else None


def _splits_exactly(low: float, high: float, split: TwoValues, k: int) -> bool:
    if split.middle == 0:
        return True
    unit = min(lowest_bit(number) for number in (low, high) if number != 0)
    exact = all(float(np.float32(number)) == number for number in split)
    return exact and k * (abs(low) + abs(high)) < min(_FLOAT32_EXACT * unit, 2.0**127)


def rising(context: Context, x: Signs) -> Signs:
    """The same numbers on bits whose +1 stands for the larger one."""
    if bool(x.pair[0] <= x.pair[1]):
        return x
    minus = context.builder.floats(np.array([-1.0]), "minus")
    opposite = context.node("sign", context.node("mul", context.node("to_float", x.name), minus))
    return Signs(opposite, x.pair.flip(0))
