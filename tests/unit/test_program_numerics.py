"""The float32 fused multiply-add against exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from onebit.program import fma

TINY = 2.0**-149  # the smallest subnormal
LARGEST = (2 - 2**-23) * 2.0**127


def nearest_float32(exact: Fraction) -> float:
    """The float32 nearest to a rational, ties to even, infinite from halfway past the largest."""
    if exact == 0:
        return 0.0
    size = abs(exact)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= size < Fraction(2) ** exponent
    step = Fraction(2) ** max(exponent - 23, -149)
    rounded = round(size / step) * step  # Fraction's round() goes to even at ties
    result = float(rounded) if rounded < Fraction(2) ** 128 else float("inf")
    return result if exact > 0 else -result


def check(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> int:
    """Compare every element; returns how many a float64 multiply-add rounded twice would get wrong."""
    a, b, c = (np.asarray(v, np.float32) for v in (a, b, c))
    got = fma(a, b, c)
    assert got.dtype == np.float32
    with np.errstate(over="ignore"):
        naive = (a.astype(np.float64) * b + c).astype(np.float32)
    for p, q, r, y in zip(a.tolist(), b.tolist(), c.tolist(), got.tolist(), strict=True):
        assert y == nearest_float32(Fraction(p) * Fraction(q) + Fraction(r)), (p.hex(), q.hex(), r.hex())
    return int(np.sum(naive != got))


def test_the_oracle_itself() -> None:
    assert nearest_float32(Fraction(1, 3)) == float(np.float32(1 / 3))
    assert nearest_float32(Fraction(TINY) / 2) == 0
    assert nearest_float32(Fraction(TINY) * Fraction(3, 2)) == 2 * TINY
    assert nearest_float32(Fraction(LARGEST) + Fraction(2) ** 102) == LARGEST
    assert nearest_float32(-Fraction(LARGEST) - Fraction(2) ** 103) == -np.inf


def test_random_bit_patterns() -> None:
    rng = np.random.default_rng(1)
    a, b, c = rng.integers(0, 2**32, (3, 6000), dtype=np.uint64).astype(np.uint32).view(np.float32)
    finite = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
    assert finite.sum() > 5000
    check(a[finite], b[finite], c[finite])


def test_cancellation() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 6000)).astype(np.float32)
    product = a * b
    c = -product * (1 + rng.integers(-2, 3, 6000) * np.float32(2**-23))
    check(a, b, c)


def test_double_rounding_where_float64_alone_fails() -> None:
    # a·b = 2^-24 + (i+1)·2^-47 + i·2^-70, and half a unit in the last place of c is 2^-24: for i = -1 the sum
    # lies 2^-70 beside a tie of float32, which float64 cannot see.
    i = np.arange(-100, 100, dtype=np.float32)
    a = np.float32(2**-12) * (1 + i * np.float32(2**-23))
    b = np.full(200, 2**-12 * (1 + 2**-23), np.float32)
    wrong = 0
    for c in (1 + 2**-23, 1, -1, -1 - 2**-23):
        wrong += check(a, b, np.full(200, c)) + check(a, -b, np.full(200, c))
    assert wrong > 0, "these cases should defeat a float64 multiply-add"


def test_subnormals_and_underflow() -> None:
    rng = np.random.default_rng(3)
    count = 4000
    a = rng.normal(size=count).astype(np.float32) * np.float32(2.0**-75)
    b = rng.normal(size=count).astype(np.float32) * np.float32(2.0**-73)
    c = rng.integers(-20, 21, count).astype(np.float32) * np.float32(TINY)
    check(a, b, c)
    check(a * np.float32(2.0**-40), b, c)
    halves = np.float32(2.0**-100), np.float32(2.0**-50)  # product: half of the smallest subnormal
    check(np.full(3, halves[0]), np.full(3, halves[1]), np.array([0, TINY, -TINY]))


def test_overflow_and_the_last_step_before_it() -> None:
    big = np.float32(LARGEST)
    half_ulp = np.float32(2.0**103)
    below = np.float32((1 - 2**-24) * 2.0**103)
    a = np.array([big, big, big, big, -big, -big, big])
    b = np.array([1, 1, 2, 2, 1, 1, big])
    c = np.array([half_ulp, below, -big, 0, -half_ulp, -below, -big])
    check(a, b, c)
    assert fma(big, np.float32(1), below) == big
    assert fma(big, np.float32(1), half_ulp) == np.inf


@pytest.mark.parametrize(
    ("a", "b", "c", "expected"),
    [
        (np.inf, 2, 1, np.inf),
        (np.inf, -2, 1, -np.inf),
        (1, 1, -np.inf, -np.inf),
        (LARGEST, LARGEST, -np.inf, -np.inf),
    ],
)
def test_infinities(a: float, b: float, c: float, expected: float) -> None:
    assert fma(np.float32(a), np.float32(b), np.float32(c)) == expected


def test_nan_and_signed_zeros() -> None:
    def one(a: float, b: float, c: float) -> float:
        return float(fma(np.float32(a), np.float32(b), np.float32(c)))

    assert np.isnan([one(np.nan, 1, 1), one(np.inf, 0, 1), one(np.inf, 1, -np.inf)]).all()
    signs = [np.signbit(one(*v)) for v in [(0, 1, 0), (-0.0, 1, -0.0), (-0.0, 1, 0), (1, 1, -1)]]
    assert signs == [False, True, False, False]


def test_broadcasting_and_empty_batches() -> None:
    x = np.ones((2, 3, 4), np.float32)
    assert (
        fma(x, np.full(4, 2, np.float32), np.ones(4, np.float32)).tolist() == np.full((2, 3, 4), 3).tolist()
    )
    assert fma(x[:0], np.ones(4, np.float32), np.ones(4, np.float32)).shape == (0, 3, 4)
