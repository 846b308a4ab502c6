"""Sums of a binary layer over inputs on a grid, as bytes times a number are: exact, then rounded once.

An input lies on a grid where it has the 256 values of a byte, or some of them: x = start + n·step, n in
0 … 255, all of them integers below 2^24 times one unit u, a power of two. Its sum with ±1 over K terms is an
integer below K·2^24 times u. Up to 2^24 float32 holds it whatever the order of summation. Beyond, float32
rounds on the way, otherwise for another batch size, while the packed network sums integers and rounds once.
float64 holds it up to 2^53, so it gives that same number.

Where x lies on no such grid (activations), no order of float32 sums is the right one, and they stay.
"""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor

from onebit.nn.tracing import in_torch_func

__all__ = ["needs_float64"]

_FLOAT32_DIGITS, _FLOAT64_DIGITS = 2.0**24, 2.0**53
_SAMPLE = 1024  # values that tell activations from grids before all are looked at


@torch.no_grad()
def needs_float64(x: Tensor, terms: int) -> bool:
    """Whether sums of `terms` values ±x are exact in float64 and may not be in float32.

    x: float32 on a CPU; False for any other, and under compilation, export and torch.func, which cannot look.
    """
    if x.dtype is not torch.float32 or x.device.type != "cpu" or not x.numel():
        return False
    if torch.compiler.is_compiling() or in_torch_func() or type(x) is not Tensor:
        return False
    largest = float(x.abs().max())
    if not 0 < largest < float("inf"):
        return False
    flat = x.detach().reshape(-1)
    if largest >= _FLOAT32_DIGITS * _unit(flat[:_SAMPLE]):
        return False
    unit = _unit(flat)
    levels = largest / unit
    if levels >= _FLOAT32_DIGITS or not _FLOAT32_DIGITS < terms * levels <= _FLOAT64_DIGITS:
        return False
    return _are_bytes(flat.sort().values, unit)


def _are_bytes(ordered: Tensor, unit: float) -> bool:
    """Whether values, in order, are start + n·step with n in 0 … 255. A few activations are not."""
    different = ordered[1:][ordered[1:] != ordered[:-1]]
    if len(different) > 255:
        return False
    apart: list[int] = ((different - ordered[0]).double() / unit).to(torch.int64).tolist()
    return not apart or apart[-1] <= 255 * gcd(*apart)


def _unit(x: Tensor) -> float:
    """The largest power of two of which all values are multiples; infinity for zeros alone."""
    mantissa, exponent = torch.frexp(x[x != 0])
    if not mantissa.numel():
        return float("inf")
    digits = (mantissa * _FLOAT32_DIGITS).to(torch.int32)
    return float(torch.ldexp((digits & -digits).double(), exponent - 24).min())
