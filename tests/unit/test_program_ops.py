"""Each op against a tiny oracle in plain Python numbers, which shares no code with the op."""

from __future__ import annotations

import itertools
import math
import struct
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from onebit.program import OPS, Constant, Program, TensorType, execute
from program_samples import (
    HURTING,
    bits,
    bits_constant,
    bytes_mlp,
    constant,
    conv_zoo,
    f32,
    float_zoo,
    i32,
    one_op,
    signs,
    u8,
)

LEADS = ((), (3,), (2, 3))


def run(program: Program, *inputs: np.ndarray) -> np.ndarray:
    return execute(program, *inputs)["y"]


def to_float32(x: float) -> float:
    """Round a float64 to float32 with the C library, not NumPy."""
    return struct.unpack("<f", struct.pack("<f", x))[0]


def rows(x: np.ndarray) -> list[list[Any]]:
    return x.reshape(-1, x.shape[-1]).tolist()


def test_every_op_has_a_sample() -> None:
    used = {node.op for program in (bytes_mlp(), float_zoo(), conv_zoo()) for node in program.nodes}
    assert used == set(OPS)
    assert all(op.definition and op.name == name for name, op in OPS.items())


@pytest.mark.parametrize("k", HURTING)
@pytest.mark.parametrize("lead", LEADS)
def test_binary_gemm_is_k_minus_twice_the_popcount(k: int, lead: tuple[int, ...]) -> None:
    rng = np.random.default_rng(k)
    x, w = signs(rng, 2, *lead, k), signs(rng, 5, k)
    y = run(one_op("binary_gemm", {"x": bits(*lead, k)}, {"w": bits_constant(w)}, i32(*lead, 5)), x)

    def word(row: list[int]) -> int:
        return sum(1 << i for i, sign in enumerate(row) if sign > 0)

    expected = [[k - 2 * (word(a) ^ word(b)).bit_count() for b in rows(w)] for a in rows(x)]
    assert y.dtype == np.int32
    assert y.shape == (2, *lead, 5)
    assert rows(y) == expected


def test_binary_gemm_goes_beyond_16_bits() -> None:
    k = 70_001
    x = np.ones((1, k), np.int8)
    w = np.stack([np.ones(k), -np.ones(k)])
    y = run(one_op("binary_gemm", {"x": bits(k)}, {"w": bits_constant(w)}, i32(2)), x)
    assert y.tolist() == [[k, -k]]


@pytest.mark.parametrize("k", HURTING)
@pytest.mark.parametrize(("multiplier", "offset"), [(2, -255), (1, 0), (-3, 7)])
def test_u8_gemm_is_the_sum_of_scaled_bytes(k: int, multiplier: int, offset: int) -> None:
    rng = np.random.default_rng(k)
    x, w = rng.integers(0, 256, (2, 3, k), dtype=np.uint8), signs(rng, 4, k)
    program = one_op(
        "u8_gemm", {"x": u8(3, k)}, {"w": bits_constant(w)}, i32(3, 4), multiplier=multiplier, offset=offset
    )
    expected = [
        [sum(s * (multiplier * p + offset) for s, p in zip(b, a, strict=True)) for b in rows(w)]
        for a in rows(x)
    ]
    assert rows(run(program, x)) == expected


def test_u8_gemm_reaches_the_end_of_int32_exactly() -> None:
    k, multiplier = 3, (2**31 - 1) // (3 * 255)
    offset = -((2**31 - 1) // 3 - 255 * multiplier)
    x, w = np.zeros((1, k), np.uint8), np.ones((1, k))
    x[0, 0] = 255
    program = one_op(
        "u8_gemm", {"x": u8(k)}, {"w": bits_constant(w)}, i32(1), multiplier=multiplier, offset=offset
    )
    assert run(program, x).tolist() == [[multiplier * 255 + 3 * offset]]


@pytest.mark.parametrize("k", HURTING)
def test_float_gemms_sum_exactly_and_round_once(k: int) -> None:
    rng = np.random.default_rng(k)
    x = rng.normal(size=(2, 3, k)).astype(np.float32)
    float_w, one_bit_w = rng.normal(size=(4, k)).astype(np.float32), signs(rng, 4, k)
    for op, w, const in (
        ("f32_gemm", float_w, constant(float_w)),
        ("f32_binary_gemm", one_bit_w, bits_constant(one_bit_w)),
    ):
        y = run(one_op(op, {"x": f32(3, k)}, {"w": const}, f32(3, 4)), x)
        assert y.dtype == np.float32
        for a, got in zip(rows(x), rows(y), strict=True):
            for b, value in zip(rows(w), got, strict=True):
                products = [Fraction(p) * Fraction(q) for p, q in zip(a, b, strict=True)]
                exact, size = sum(products), float(sum(map(abs, products)))
                assert abs(Fraction(value) - exact) <= 2**-24 * abs(exact) + k * 2**-52 * size


def test_float_gemms_do_not_sum_in_float32() -> None:
    x = np.array([[2.0**30, 1.0, -(2.0**30)]], np.float32)
    y = run(one_op("f32_binary_gemm", {"x": f32(3)}, {"w": bits_constant(np.ones((1, 3)))}, f32(1)), x)
    assert y.tolist() == [[1.0]]


def test_sign_of_zeros_and_extremes() -> None:
    x = np.array([[0.0, -0.0, 1e-45, -1e-45, np.inf, -np.inf, 3.0, -3.0]], np.float32)
    y = run(one_op("sign", {"x": f32(8)}, {}, bits(8)), x)
    assert y.dtype == np.int8
    assert y.tolist() == [[1, 1, 1, -1, 1, -1, 1, -1]]


@pytest.mark.parametrize("c", HURTING)
def test_threshold_compares_then_flips(c: int) -> None:
    rng = np.random.default_rng(c)
    x = rng.integers(-3, 4, (4, 2, c)).astype(np.int32)
    t, flip = rng.integers(-3, 4, c).astype(np.int32), signs(rng, c)
    constants = {"t": constant(t), "f": bits_constant(flip)}
    y = run(one_op("threshold", {"x": i32(2, c)}, constants, bits(2, c)), x)
    expected = [
        [(1 if v >= b else -1) * (-1 if f > 0 else 1) for v, b, f in zip(a, t.tolist(), flip, strict=True)]
        for a in rows(x)
    ]
    assert rows(y) == expected


def test_threshold_at_the_ends_of_int32() -> None:
    low, high = -(2**31), 2**31 - 1
    x = np.array([[low] * 4, [high] * 4], np.int32)
    constants = {
        "t": constant(np.array([low, low, high, high], np.int32)),
        "f": bits_constant([-1, 1, -1, 1]),
    }
    y = run(one_op("threshold", {"x": i32(4)}, constants, bits(4)), x)
    assert y.tolist() == [[1, -1, -1, 1], [1, -1, 1, -1]]


def test_to_float_rounds_large_integers_to_even() -> None:
    x = np.array([[2**24 + 1, 2**24 + 3, 2**31 - 1, -(2**31), -(2**24) - 1, 7]], np.int32)
    y = run(one_op("to_float", {"x": i32(6)}, {}, f32(6)), x)
    assert y.dtype == np.float32
    assert y.tolist() == [[2.0**24, 2.0**24 + 4, 2.0**31, -(2.0**31), -(2.0**24), 7.0]]


def test_to_float_of_bytes_and_bits() -> None:
    assert run(one_op("to_float", {"x": u8(3)}, {}, f32(3)), np.array([[0, 1, 255]], np.uint8)).tolist() == [
        [0, 1, 255]
    ]
    assert run(one_op("to_float", {"x": bits(2)}, {}, f32(2)), np.array([[1, -1]], np.int8)).tolist() == [
        [1, -1]
    ]


def test_scale_pixels_is_exact_for_every_byte() -> None:
    x = np.arange(256, dtype=np.uint8)[None]
    y = run(one_op("scale_pixels", {"x": u8(256)}, {}, f32(256)), x)
    assert [Fraction(v) for v in y[0].tolist()] == [Fraction(2 * b - 255, 256) for b in range(256)]


@pytest.mark.parametrize("c", [1, 33])
def test_affine_rounds_once(c: int) -> None:
    rng = np.random.default_rng(c)
    x = rng.normal(size=(64, c)).astype(np.float32)
    scale, shift = rng.normal(size=(2, c)).astype(np.float32)
    y = run(one_op("affine", {"x": f32(c)}, {"s": constant(scale), "b": constant(shift)}, f32(c)), x)
    twice = 0
    for row, got in zip(x.tolist(), y.tolist(), strict=True):
        for v, s, b, value in zip(row, scale.tolist(), shift.tolist(), got, strict=True):
            exact = Fraction(v) * Fraction(s) + Fraction(b)
            # Within half a unit in the last place of the result, so it is the nearest float32.
            assert abs(Fraction(value) - exact) <= Fraction(math.ulp(value)) * 2**29 / 2
            twice += value != to_float32(to_float32(v * s) + b)
    assert c == 1 or twice, "these numbers should tell one rounding from two"


ARITHMETIC = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
}


@pytest.mark.parametrize("op", ARITHMETIC)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (1, 3), (2, 1), (2, 3)])
@pytest.mark.parametrize("const_first", [False, True])
def test_arithmetic_with_a_constant(op: str, shape: tuple[int, ...], const_first: bool) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 2, 3)).astype(np.float32)
    c = constant(rng.normal(size=shape).astype(np.float32))
    order = ("c", "x") if const_first else ("x", "c")
    y = run(one_op(op, {"x": f32(2, 3)}, {"c": c}, f32(2, 3), order), x)
    # float64 has more than twice the bits, so rounding its result to float32 rounds once.
    for i, j, k in itertools.product(range(2), range(2), range(3)):
        where = tuple(
            index if size > 1 else 0 for index, size in zip((j, k)[2 - len(shape) :], shape, strict=True)
        )
        a, b = float(x[i, j, k]), float(c.array[where])
        expected = ARITHMETIC[op](b, a) if const_first else ARITHMETIC[op](a, b)
        assert y[i, j, k] == to_float32(expected)


@pytest.mark.parametrize("op", ARITHMETIC)
def test_arithmetic_of_two_values(op: str) -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 4, 33)).astype(np.float32)
    y = run(one_op(op, {"a": f32(33), "b": f32(33)}, {}, f32(33)), a, b)
    for p, q, value in zip(a.ravel().tolist(), b.ravel().tolist(), y.ravel().tolist(), strict=True):
        assert value == to_float32(ARITHMETIC[op](p, q))


def test_arithmetic_follows_ieee_at_the_edges() -> None:
    x = np.array([[1.0, -1.0, 0.0, 3e38]], np.float32)
    zero = constant(np.zeros(4, np.float32))
    y = run(one_op("div", {"x": f32(4)}, {"c": zero}, f32(4)), x)
    assert y[0, 0] == np.inf
    assert y[0, 1] == -np.inf
    assert np.isnan(y[0, 2])
    large = constant(np.full(4, 3e38, np.float32))
    assert run(one_op("add", {"x": f32(4)}, {"c": large}, f32(4)), x)[0, 3] == np.inf


def test_relu_keeps_zeros_as_they_are() -> None:
    x = np.array([[-2.0, -0.0, 0.0, 2.0, -np.inf, np.inf]], np.float32)
    y = run(one_op("relu", {"x": f32(6)}, {}, f32(6)), x)
    assert y.tolist() == [[0, 0, 0, 2, 0, np.inf]]
    assert np.signbit(y).tolist() == [[False, True, False, False, False, False]]


@pytest.mark.parametrize("slopes", [[0.25], [0.25, -2.0, 0.1]])
def test_prelu_per_tensor_and_per_channel(slopes: list[float]) -> None:
    x = np.array([[-1.5, -3.0, -7.0], [1.0, 0.0, -0.0]], np.float32)
    slope = np.array(slopes, np.float32)
    y = run(one_op("prelu", {"x": f32(3)}, {"s": constant(slope)}, f32(3)), x)
    wide = (slope.tolist() * 3)[:3]
    expected = [
        [v if v >= 0 else to_float32(v * s) for v, s in zip(row, wide, strict=True)] for row in rows(x)
    ]
    assert rows(y) == expected


def test_hardtanh_rounds_its_bounds_to_float32() -> None:
    x = np.array([[-5.0, -0.1, 0.0, 0.1, 0.2, 5.0]], np.float32)
    y = run(one_op("hardtanh", {"x": f32(6)}, {}, f32(6), min=-0.3, max=0.1), x)
    low, high = to_float32(-0.3), to_float32(0.1)
    assert y.tolist() == [[low, to_float32(-0.1), 0.0, high, high, high]]


def test_hardswish_rounds_each_of_its_steps() -> None:
    x = np.float32([[-4, -3, -1.7, -0.0, 0.1, 2.9, 3, 7, np.inf, -np.inf]])
    y = run(one_op("hardswish", {"x": f32(10)}, {}, f32(10)), x)[0]
    expected = []
    for v in x[0, :8].tolist():
        clipped = min(max(to_float32(v + 3), 0.0), 6.0)
        expected.append(to_float32(to_float32(v * clipped) / 6))
    assert y[:8].tolist() == expected
    assert expected[:2] == [0.0, 0.0]
    assert y[7] == 7
    assert y[8] == np.inf
    assert np.isnan(y[9])


@pytest.mark.parametrize(
    ("type_", "form"), [(u8, np.uint8), (i32, np.int32), (f32, np.float32), (bits, np.int8)]
)
def test_reshape_keeps_the_logical_order(type_: Any, form: type) -> None:
    x = np.arange(2 * 66).reshape(2, 6, 11)
    x = np.where(x % 3 == 0, 1, -1).astype(form) if type_ is bits else x.astype(form)
    y = run(one_op("reshape", {"x": type_(6, 11)}, {}, type_(33, 2), shape=(33, 2)), x)
    assert y.shape == (2, 33, 2)
    assert y.dtype == form
    assert y.ravel().tolist() == x.ravel().tolist()


def test_a_sample_of_rank_zero() -> None:
    half = Constant(TensorType(f32().dtype, ()), np.full((), 0.5, np.float32))
    program = one_op("mul", {"x": f32()}, {"c": half}, f32())
    assert run(program, np.array([3.0, 4.0], np.float32)).tolist() == [1.5, 2.0]
    assert run(one_op("reshape", {"x": f32(1)}, {}, f32(), shape=()), np.ones((2, 1), np.float32)).shape == (
        2,
    )
