"""Tables of 256 floats that are integers times a power of two: bytes that a Program can sum as integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class ByteGrid:
    """A byte table as integers: table[x] = (multiplier·x + offset)·unit, exactly; unit is a power of two."""

    multiplier: int
    offset: int
    unit: float


def grid_of(table: Tensor) -> ByteGrid | None:
    """The ByteGrid of a float32 byte table, or None if it has none (e.g. x / 255, which rounds)."""
    values = table.double().numpy()
    if table.dtype is not torch.float32 or not np.isfinite(values).all():
        return None
    step, start = float(values[1] - values[0]), float(values[0])
    if step == 0.0 or not np.array_equal(start + step * np.arange(256), values):
        return None
    unit = min(lowest_bit(x) for x in (step, start) if x != 0.0)
    multiplier, offset = round(step / unit), round(start / unit)
    if multiplier * unit != step or offset * unit != start or 255 * abs(multiplier) + abs(offset) >= 2**24:
        return None
    return ByteGrid(multiplier, offset, unit)


def lowest_bit(x: float) -> float:
    """The weight of the lowest set bit of a float that is not 0."""
    numerator, denominator = abs(x).as_integer_ratio()
    return float(numerator & -numerator) / denominator
