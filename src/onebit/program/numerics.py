"""Float32 arithmetic that NumPy lacks, rounded as IEEE 754 says."""

from __future__ import annotations

import numpy as np

from onebit.program.tensors import Array


def fma(a: Array, b: Array, c: Array) -> Array:
    """a·b + c of float32 arrays (broadcast together), rounded once to float32.

    The product of two float32 values is exact in float64 (48 significant bits, exponents well inside).
    Its float64 sum with c may be inexact, and rounding that again to float32 would round twice. So the sum
    is rounded *to odd*: the error of the addition comes exactly from Knuth's two-sum, and an inexact sum
    with an even last bit moves one step towards the true value. Rounding an odd-rounded value of 53 bits
    to 24 bits (or fewer, for subnormals) equals rounding the exact value once (Boldo and Melquiond,
    "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008).
    """
    with np.errstate(all="ignore"):
        product = np.asarray(a, np.float64) * np.asarray(b, np.float64)
        addend = np.asarray(c, np.float64)
        total = np.array(product + addend)
        # Knuth's two-sum: total + error == product + addend exactly. An infinity or a NaN makes `error` NaN.
        back = total - product
        error = (product - (total - back)) + (addend - back)
        bits = total.view(np.int64)
        fix = (error != 0) & np.isfinite(total) & ((bits & 1) == 0)
        away_from_zero = (error > 0) == (total > 0)
        bits += np.where(fix, np.where(away_from_zero, 1, -1), 0)
        return total.astype(np.float32)
